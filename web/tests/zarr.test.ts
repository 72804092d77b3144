// zarrita reads arrays of napari-tinc through the codec. tests/test_web_decoder.py writes them, and what they decode to
// in Python, and runs this.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as zarr from 'zarrita';
import { NAME, TincCodec } from '../src/zarr.js';
import { valuesOf } from './expected.js';
import { readNpz } from './npz.js';

const FOLDER = process.env['TINC_ZARR'];

/** A folder on disk as zarrita's stores are. */
class Folder {
  constructor(private readonly root: string) {}

  get(key: string): Promise<Uint8Array | undefined> {
    const path = `${this.root}${key}`;
    return Promise.resolve(existsSync(path) ? new Uint8Array(readFileSync(path)) : undefined);
  }

  async getRange(key: string, range: { offset: number; length: number } | { suffixLength: number }): Promise<Uint8Array | undefined> {
    const bytes = await this.get(key);
    return 'suffixLength' in range ? bytes?.slice(-range.suffixLength) : bytes?.slice(range.offset, range.offset + range.length);
  }
}

test('zarrita reads our arrays and OME-Zarr', { skip: FOLDER ? false : 'TINC_ZARR names no folder' }, async () => {
  zarr.registry.set(NAME, () => TincCodec as never);
  const expected = readNpz(new URL(`file://${FOLDER}/expected.npz`));
  assert.ok(expected.size >= 5);
  for (const [name, { dtype, shape, bytes }] of expected) {
    const path = name.replace('@', '/');
    const array = await zarr.open(new Folder(`${FOLDER}/${path}`) as never, { kind: 'array' });
    const { data, shape: found } = (await zarr.get(array)) as { data: ArrayLike<number | bigint>; shape: number[] };
    assert.deepEqual(found, shape);
    const values = valuesOf(dtype, bytes);
    const exact = name.startsWith('exact');
    let off = 0;
    for (let i = 0; i < values.length; i++) {
      const error = Math.abs(Number(values[i]) - Number(data[i]));
      assert.ok(error <= (exact ? 0 : 1), `${name}: voxel ${i} is ${data[i]}, expected ${values[i]}`);
      if (error) off++;
    }
    assert.ok(off < 0.01 * values.length, `${name}: ${off} voxels differ`);
  }
});
