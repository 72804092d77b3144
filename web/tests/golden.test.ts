import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { UnsupportedError, Volume } from '../src/index.js';
import { itemOf, valuesOf } from './expected.js';
import { readNpz } from './npz.js';

const GOLDEN = new URL('../../../tests/golden/', import.meta.url);
const LOSSLESS = [4, 32];

for (const name of readdirSync(GOLDEN).filter((each) => each.endsWith('.tinc'))) {
  test(`${name} decodes to what Python decoded when it was made`, async () => {
    const volume = await Volume.open(new Uint8Array(readFileSync(new URL(name, GOLDEN))));
    if (!volume.decodable) {
      await assert.rejects(volume.voxels(0), UnsupportedError);
      return;
    }
    const { frame } = volume;
    const { dtype, bytes } = readNpz(new URL(name.replace('.tinc', '.npz'), GOLDEN)).get('decoded')!;
    const all = valuesOf(dtype, bytes);
    for (let item = 0; item < frame.items.length; item++) {
      const expected = itemOf(frame, all, item);
      const voxels = await volume.voxels(item);
      assert.equal(voxels.length, expected.length);
      const { minimum, maximum } = frame.items[item]!;
      const tolerance = LOSSLESS.includes(frame.model) ? 0 : dtype[1] === 'f' ? 1e-5 * (maximum - minimum) : 1;
      let largest = 0;
      let off = 0;
      expected.forEach((value, i) => {
        const error = Object.is(value, voxels[i]) ? 0 : Math.abs(Number(value) - Number(voxels[i]));
        if (error > 0) off++;
        if (!(error <= largest)) largest = error;
      });
      if (process.env['TINC_SHOW']) console.error(name, item, largest / (maximum - minimum), off / expected.length);
      assert.ok(largest <= tolerance, `item ${item} is off by ${largest}, expected at most ${tolerance}`);
    }
  });
}
