// Damage with checksums that hold: decoding ends soon, in little memory, with voxels or with an error that has a name.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FormatError, RequestError, UnsupportedError, Volume } from '../src/index.js';
import { inflate } from '../src/inflate.js';
import { edited, parts, Random, sealed, withSegment } from './reseal.js';

const GOLDEN = new URL('../../../tests/golden/', import.meta.url);
const TRIES = Number(process.env['TINC_TRIES'] ?? 30);
const SECONDS = 5;
const MEGABYTES = 100;
/** A region of what the file says its shape is: a header may promise 2⁴⁸ voxels, and nobody asks for them all. */
const MOST_SIDE = 48;

async function judge(file: Uint8Array): Promise<void> {
  const began = performance.now();
  try {
    const volume = await Volume.open(file);
    const box = volume.shape.flatMap((n) => [0, Math.min(n, MOST_SIDE)]) as unknown as Parameters<Volume['voxels']>[1];
    await volume.quality(0);
    await volume.voxels(0, box);
    await volume.voxels(volume.frame.items.length - 1, box);
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof UnsupportedError)) throw error;
    assert.ok(error.message.length > 10);
  }
  assert.ok(performance.now() - began < 1000 * SECONDS, 'too slow');
}

for (const name of readdirSync(GOLDEN).filter((each) => each.endsWith('.tinc'))) {
  test(`damage to ${name} is voxels or a named error, soon and in little memory`, async () => {
    const file = new Uint8Array(readFileSync(new URL(name, GOLDEN)));
    const random = new Random([...name].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) | 0, 7));
    const { header, rest } = parts(file);
    const { frame } = await Volume.open(file);
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < TRIES; i++) {
      await judge(edited(file, random));
      await judge(sealed(edited(header, random), rest));
      const index = random.below(frame.segments.length || 1);
      const segment = frame.segments[index];
      if (!segment) continue;
      const changed = withSegment(file, index, edited(file.subarray(segment.offset, segment.offset + segment.length), random));
      assert.ok(changed, 'the segment is in the table');
      await judge(changed);
      assert.ok(process.memoryUsage().arrayBuffers - before < MEGABYTES * 1e6, 'too much memory');
    }
  });
}

const golden = (name: string): Uint8Array => new Uint8Array(readFileSync(new URL(name, GOLDEN)));

async function codeOf(file: Uint8Array): Promise<string> {
  const error: unknown = await Volume.open(file).then((volume) => volume.voxels(0)).then(() => undefined, (reason: unknown) => reason);
  assert.ok(error instanceof FormatError, String(error));
  return error.code;
}

test('every cause has its name', async () => {
  const file = golden('v1-detail-zyx-u2.tinc');
  const { header, rest } = parts(file);
  const changed = (at: number, value: number): Uint8Array => sealed(header.with(at, value), rest);
  assert.equal(await codeOf(file.with(0, 0x88)), 'magic');
  assert.equal(await codeOf(file.with(8, 2)), 'version');
  assert.equal(await codeOf(file.with(20, file[20]! ^ 1)), 'checksum');
  assert.equal(await codeOf(file.with(file.length - 1, file.at(-1)! ^ 1)), 'checksum');
  assert.equal(await codeOf(file.subarray(0, 12)), 'truncated');
  assert.equal(await codeOf(file.subarray(0, file.length - 1)), 'truncated');
  assert.equal(await codeOf(Uint8Array.from([...file, 0])), 'trailing');
  assert.equal(await codeOf(changed(0, 99)), 'dtype');
  assert.equal(await codeOf(changed(2, 'q'.charCodeAt(0))), 'axes');
  assert.equal(await codeOf(changed(5, 0)), 'shape');
  const wavelets = (await Volume.open(file)).frame.segments.findIndex(({ kind }) => kind === 2);
  assert.equal(await codeOf(withSegment(file, wavelets, Uint8Array.of(1, 2, 3))!), 'wavelets');
});

test('a deflate bomb stops at its limit', () => {
  // A stored block of zeros and then a code that repeats them is not needed: 64 KiB are more than 1000 bytes.
  const stored = Uint8Array.from([1, 0xff, 0xff, 0, 0, ...new Uint8Array(65535)]);
  assert.throws(() => inflate(stored, 1000), FormatError);
  assert.equal(inflate(stored, 65535).length, 65535);
});

test('what is asked for is bounded, too', async () => {
  const volume = await Volume.open(golden('v1-detail-zyx-u2.tinc'));
  await assert.rejects(volume.voxels(1), RequestError);
  await assert.rejects(volume.voxels(0, [0, 1, 0, 1, 0, volume.shape[2] + 1]), RequestError);
  await assert.rejects(volume.samples(0, 99, [0, 1, 0, 1, 0, 1]), RequestError);
});
