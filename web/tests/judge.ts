// Reads files in base64 from its input, one a line, and says of each what becomes of it: for tests/test_web_decoder.py.
import { createInterface } from 'node:readline';
import { FormatError, UnsupportedError, Volume } from '../src/index.js';

/** Of every item at most so many voxels are told, evenly spread. */
const TOLD = 400;
const MOST_VOXELS = 2 ** 21;

async function judge(file: Uint8Array): Promise<object> {
  try {
    const volume = await Volume.open(file);
    const { frame, shape } = volume;
    if (shape.reduce((product, side) => product * side, frame.items.length) > MOST_VOXELS) return { large: true };
    const items: number[][] = [];
    for (let item = 0; item < frame.items.length; item++) {
      await volume.quality(item);
      const voxels = await volume.voxels(item);
      const step = Math.max(1, Math.floor(voxels.length / TOLD));
      items.push(Array.from({ length: Math.ceil(voxels.length / step) }, (_, i) => Number(voxels[i * step])));
    }
    return { shape: frame.shape, axes: frame.axes, items };
  } catch (error) {
    if (error instanceof FormatError) return { error: error.code, message: error.message };
    if (error instanceof UnsupportedError) return { unsupported: true };
    throw error;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  // NaN and infinities have no JSON.
  const text = JSON.stringify(await judge(new Uint8Array(Buffer.from(line, 'base64'))), (_, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
  );
  process.stdout.write(`${text}\n`);
}
