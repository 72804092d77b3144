import { readFileSync } from 'node:fs';
import { inflateRawSync } from 'node:zlib';

/** The arrays of a .npz file by name: dtype as NumPy spells it, shape, and the bytes. */
export function readNpz(path: URL): Map<string, { dtype: string; shape: number[]; bytes: Uint8Array }> {
  const file = readFileSync(path);
  const arrays = new Map<string, { dtype: string; shape: number[]; bytes: Uint8Array }>();
  let end = file.length - 22;
  while (file.readUInt32LE(end) !== 0x06054b50) end--;
  let at = file.readUInt32LE(end + 16);
  for (let i = file.readUInt16LE(end + 10); i > 0; i--) {
    const method = file.readUInt16LE(at + 10);
    const size = file.readUInt32LE(at + 20);
    const nameLength = file.readUInt16LE(at + 28);
    const local = file.readUInt32LE(at + 42);
    const name = file.toString('utf8', at + 46, at + 46 + nameLength);
    const start = local + 30 + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
    const stored = file.subarray(start, start + size);
    arrays.set(name.replace(/\.npy$/, ''), readNpy(method ? inflateRawSync(stored) : stored));
    at += 46 + nameLength + file.readUInt16LE(at + 30) + file.readUInt16LE(at + 32);
  }
  return arrays;
}

function readNpy(bytes: Buffer): { dtype: string; shape: number[]; bytes: Uint8Array } {
  const length = bytes.readUInt16LE(8);
  const header = bytes.toString('latin1', 10, 10 + length);
  const dtype = /'descr': '([^']+)'/.exec(header)![1]!;
  const shape = [...(/'shape': \(([^)]*)\)/.exec(header)![1]!.matchAll(/\d+/g))].map(([n]) => Number(n));
  return { dtype, shape, bytes: new Uint8Array(bytes.subarray(10 + length)) };
}
