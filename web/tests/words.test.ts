import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Volume } from '../src/index.js';
import { bytesText, niceLength, numberText, summarise, trustText, unitText, worstOctants } from '../src/viewer/words.js';

const open = (name: string): Promise<Volume> =>
  Volume.open(new Uint8Array(readFileSync(new URL(`../../../tests/golden/${name}.tinc`, import.meta.url))));

test('numbers, lengths and units are those that people write', () => {
  assert.deepEqual([0, 0.012345, 12.345, 1234.5, 65535].map(numberText), ['0', '0.0123', '12.3', '1,235', '65,535']);
  assert.deepEqual([0.7, 1.3, 49, 60, 120].map(niceLength), [0.5, 1, 20, 50, 100]);
  assert.deepEqual([999, 32675, 1.99e6].map(bytesText), ['999 B', '32.7 kB', '1.99 MB']);
  assert.deepEqual(['micrometer', 'parsec', 'x'.repeat(40)].map(unitText), ['µm', 'parsec', `${'x'.repeat(12)}…`]);
});

test('nothing is promised that the file does not say', async () => {
  const words = async (name: string): Promise<string> => {
    const { frame, ...volume } = await open(name).then(async (opened) => ({ frame: opened.frame, quality: await opened.quality(0) }));
    return trustText(frame, volume.quality, 0).join(' ');
  };
  assert.match(await words('v1-exact-zyx-i8'), /Nothing was lost/);
  assert.match(await words('v1-corrected-zyx-u2'), /guaranteed that no voxel is off by more than/);
  assert.doesNotMatch(await words('v1-detail-zyx-u2'), /guaranteed/);
  assert.match(await words('v1-detail-zyx-u2'), /Measured against the original/);
  assert.match(await words('v1-constant-i2'), /All voxels have one value/);
});

test('what was cut from another file has bounds, and nothing measured', async () => {
  const volume = await open('v1-detail-zyx-u2');
  const provenance = { ...volume.frame.metadata.provenance, cut_from: '8103 bytes, 34.52 dB' };
  const cut: typeof volume.frame = Object.create(volume.frame, { metadata: { value: { ...volume.frame.metadata, provenance } } });
  const words = trustText(cut, await volume.quality(0), 0).join(' ');
  assert.match(words, /Against the original it has at least [\d.]+ dB/);
  assert.doesNotMatch(words, /Measured/);
});

test('the summary of octants is the quality of the whole', async () => {
  const volume = await open('v1-detail-zyx-u2');
  const quality = (await volume.quality(0))!;
  const octants = Array.from({ length: quality.octants }, (_, octant) => octant);
  const { psnr, worstPsnr, largestError } = summarise(quality, volume.frame.spatialShape);
  assert.equal(worstPsnr, Math.min(...octants.map((octant) => quality.psnr(octant))));
  assert.equal(largestError, Math.max(...octants.map((octant) => quality.largestError(octant))));
  assert.ok(psnr >= worstPsnr && psnr <= Math.max(...octants.map((octant) => quality.psnr(octant))));
  const order = worstOctants(quality, 3).map((octant) => quality.psnr(octant));
  assert.deepEqual(order, [...order].sort((a, b) => a - b));
});
