// Arrays of chunks as pages read them. tests/test_share.py makes them, and what is expected of them, and runs this.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { wholeBox } from '../src/box.js';
import { FormatError, inlinePool, RequestError } from '../src/index.js';
import { type ArrayDescription, CompressedArray } from '../src/viewer/array.js';
import { valuesOf } from './expected.js';
import { readNpz } from './npz.js';
import { edited, Random } from './reseal.js';

const FOLDER = process.env['TINC_PAGES'];
const skip = FOLDER ? false : 'TINC_PAGES names no folder';
const TRIES = 60;
const MEGABYTES = 100;

/** A folder as a server shows it, with files that are changed on the way. */
function folder(change: (path: string, file: Uint8Array) => Uint8Array, ranges = true): typeof fetch {
  return ((address: string, { headers }: { headers: { Range: string } }) => {
    if (!existsSync(address)) return Promise.resolve(new Response(null, { status: 404 }));
    const file = change(address, new Uint8Array(readFileSync(address)));
    if (!ranges) return Promise.resolve(new Response(file.slice()));
    const [from, to] = headers.Range.slice(6).split('-') as [string, string];
    const start = from ? Number(from) : Math.max(0, file.length - Number(to));
    const stop = from ? Math.min(file.length, Number(to) + 1) : file.length;
    const status = start < stop ? 206 : 416;
    return Promise.resolve(new Response(file.slice(start, stop), { status, headers: { 'Content-Range': `bytes ${start}-${stop - 1}/${file.length}` } }));
  }) as unknown as typeof fetch;
}

const same = (_: string, file: Uint8Array): Uint8Array => file;

function open(site: string, fetcher: typeof fetch, change: (said: ArrayDescription) => ArrayDescription = (said) => said): CompressedArray {
  const page = readFileSync(`${FOLDER}/${site}/index.html`, 'utf8');
  const [file] = JSON.parse(/id="files">([^<]*)</.exec(page)![1]!) as [{ url: string; array: ArrayDescription }];
  return new CompressedArray(`${FOLDER}/${site}/${file.url}`, change(file.array), inlinePool, fetcher);
}

test('levels and channels are those that Python reads, in shards and in single chunks, with ranges and without', { skip }, async () => {
  for (const [site, ranges] of [['array', true], ['array', false], ['chunks', true]] as const) {
    const array = open(site, folder(same, ranges));
    const expected = readNpz(new URL(`file://${FOLDER}/${site}.npz`));
    for (const [scale, { shape, means }] of (await array.scales()).entries()) {
      assert.equal(means, scale > 0);
      const { dtype, bytes } = expected.get(String(scale))!;
      const values = valuesOf(dtype, bytes) as Uint16Array;
      for (let item = 0; item < array.frame.items.length; item++) {
        const samples = await array.samples(item, scale, wholeBox(shape));
        // Where rounding makes a decoder choose another filter, a voxel may be farther off: docs/format.md, Restoration.
        const far = samples.filter((sample, i) => Math.abs(sample - values[item * samples.length + i]!) > 1);
        assert.ok(far.length <= samples.length / 20_000, `${site}: ${far.length} of ${samples.length} voxels of level ${scale}`);
      }
    }
  }
});

test('a region fetches the chunks that it meets', { skip }, async () => {
  const asked: string[] = [];
  const array = open('chunks', folder((path, file) => (asked.push(path), file)));
  await array.samples(0, 0, [0, 1, 0, 32, 20, 40]);
  assert.deepEqual(asked.map((path) => path.slice(path.indexOf('/c/'))).sort(), ['/c/0/0/0', '/c/0/0/1']);
});

async function refusal(fetcher: typeof fetch, change?: (said: ArrayDescription) => ArrayDescription): Promise<Error> {
  const array = open('array', fetcher, change);
  return array.samples(0, 0, wholeBox((await array.scales())[0]!.shape)).then(() => assert.fail('nothing was refused'), (error: Error) => error);
}

test('shards that are damaged, cut off or missing, and chunks of another array, are refused by name', { skip }, async () => {
  const codeOf = async (fetcher: typeof fetch, change?: (said: ArrayDescription) => ArrayDescription): Promise<string> => {
    const error = await refusal(fetcher, change);
    assert.ok(error instanceof FormatError, String(error));
    return error.code;
  };
  assert.equal(await codeOf(folder((_, file) => file.with(file.length - 9, file.at(-9)! ^ 1))), 'checksum');
  assert.equal(await codeOf(folder((_, file) => file.slice(0, -1))), 'checksum');
  assert.equal(await codeOf(folder((_, file) => file.slice(-20))), 'truncated');
  assert.equal(await codeOf(folder((_, file) => file.slice(100))), 'magic');
  assert.equal(await codeOf(folder(same), (said) => ({ ...said, dtype: 'u1' })), 'shape');
  assert.match((await refusal(() => Promise.resolve(new Response(null, { status: 404 })))).message, /404/);
  // Of chunks that the manifest says are empty there are no bytes: the table of a shard must not be asked for them.
  assert.equal(await codeOf(folder(same), (said) => ({ ...said, levels: said.levels.map((level) => ({ ...level, empty: '' })) })), 'table');
});

test('damage to shards is voxels or an error, soon and in little memory', { skip }, async () => {
  const random = new Random(7);
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < TRIES; i++) {
    const array = open('array', folder((_, file) => edited(file, random)));
    await array.samples(0, 1, wholeBox((await array.scales())[1]!.shape)).catch((error: Error) => assert.ok(error.message.length > 10));
    assert.ok(process.memoryUsage().arrayBuffers - before < MEGABYTES * 1e6, 'too much memory');
  }
});

test('more than a page decodes at once is refused before anything is fetched', { skip }, async () => {
  const large = (said: ArrayDescription): ArrayDescription => ({ ...said, levels: said.levels.map((level) => ({ ...level, shape: level.shape.map(() => 10_000) })) });
  const array = open('array', () => assert.fail('something was fetched'), large);
  await assert.rejects(array.samples(0, 0, [0, 1, 0, 9000, 0, 9000]), RequestError);
});
