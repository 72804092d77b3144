import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { HttpSource, Volume } from '../src/index.js';

const FILE = new Uint8Array(readFileSync(new URL('../../../tests/golden/v1-detail-zyx-u2.tinc', import.meta.url)));

/** A server in one function: with ranges, without, or with an error. */
function server(status: 200 | 206 | 404): { asked: string[]; fetcher: typeof fetch } {
  const asked: string[] = [];
  const fetcher = ((_: string, { headers }: { headers: { Range: string } }) => {
    asked.push(headers.Range);
    const [start, last] = headers.Range.slice(6).split('-').map(Number) as [number, number];
    const body = status === 206 ? FILE.slice(start, last + 1) : status === 200 ? FILE.slice() : null;
    return Promise.resolve(new Response(body, { status, headers: { 'Content-Range': `bytes ${start}-${last}/${FILE.length}` } }));
  }) as unknown as typeof fetch;
  return { asked, fetcher };
}

test('reads that are asked for together are one request where they lie near, and several where they do not', async () => {
  const { asked, fetcher } = server(206);
  const source = new HttpSource('file', fetcher);
  const [late, early] = await Promise.all([source.read(40, 50), source.read(10, 20)]);
  assert.deepEqual(asked, ['bytes=10-49']);
  assert.deepEqual([early, late], [FILE.slice(10, 20), FILE.slice(40, 50)]);
  await Promise.all([source.read(0, 10), source.read(100_000, 100_010)]);
  assert.equal(asked.length, 3);
  assert.equal(source.size, FILE.length);
});

test('a server without ranges is asked once, and the volume is the same', async () => {
  const { asked, fetcher } = server(200);
  const volume = await Volume.open(new HttpSource('file', fetcher));
  assert.deepEqual(await volume.voxels(0), await (await Volume.open(FILE)).voxels(0));
  assert.equal(asked.length, 1);
});

test('an answer of another range is an error', async () => {
  const shifted = (by: number, more: number): typeof fetch =>
    ((_: string, { headers }: { headers: { Range: string } }) => {
      const [start, last] = headers.Range.slice(6).split('-').map(Number) as [number, number];
      const body = FILE.slice(start, last + 1 + more);
      return Promise.resolve(new Response(body, { status: 206, headers: { 'Content-Range': `bytes ${start + by}-${last}/*` } }));
    }) as unknown as typeof fetch;
  await assert.rejects(new HttpSource('brain.tinc', shifted(1, 0)).read(10, 20), /brain\.tinc.*another range/);
  await assert.rejects(new HttpSource('brain.tinc', shifted(0, 5)).read(10, 20), /brain\.tinc.*another range/);
  assert.deepEqual(await new HttpSource('brain.tinc', shifted(0, 0)).read(10, 20), FILE.slice(10, 20));
});

test('an answer without the file is an error that says which', async () => {
  await assert.rejects(Volume.open(new HttpSource('brain.tinc', server(404).fetcher)), /brain\.tinc.*404/);
});
