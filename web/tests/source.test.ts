import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { HttpSource, Volume } from '../src/index.js';

const FILE = new Uint8Array(readFileSync(new URL('../../../tests/golden/v1-detail-zyx-u2.tinc', import.meta.url)));

/** A server in one function: with ranges, without, or with an error. */
function server(status: 200 | 206 | 404, file = FILE): { asked: string[]; fetcher: typeof fetch } {
  const asked: string[] = [];
  const fetcher = ((_: string, { headers }: { headers: { Range: string } }) => {
    asked.push(headers.Range);
    const [from, to] = headers.Range.slice(6).split('-') as [string, string];
    const [start, last] = from ? [Number(from), Number(to)] : [file.length - Number(to), file.length - 1];
    const body = status === 206 ? file.slice(start, last + 1) : status === 200 ? file.slice() : null;
    return Promise.resolve(new Response(body, { status, headers: { 'Content-Range': `bytes ${start}-${Math.min(last + 1, file.length) - 1}/${file.length}` } }));
  }) as unknown as typeof fetch;
  return { asked, fetcher };
}

test('reads that are asked for together are one request where they lie near, and several where they do not', async () => {
  const large = Uint8Array.from({ length: 2 ** 17 }, (_, i) => i);
  const { asked, fetcher } = server(206, large);
  const source = new HttpSource('file', fetcher);
  const [late, early] = await Promise.all([source.read(40, 50), source.read(10, 20)]);
  assert.deepEqual(asked, ['bytes=10-49']);
  assert.deepEqual([early, late], [large.slice(10, 20), large.slice(40, 50)]);
  await Promise.all([source.read(0, 10), source.read(100_000, 100_010)]);
  assert.equal(asked.length, 3);
  assert.equal(source.size, large.length);
  assert.deepEqual(await source.readLast(7), large.slice(-7));
});

test('a server without ranges is asked once, and the volume is the same', async () => {
  const { asked, fetcher } = server(200);
  const volume = await Volume.open(new HttpSource('file', fetcher));
  assert.deepEqual(await volume.voxels(0), await (await Volume.open(FILE)).voxels(0));
  assert.equal(asked.length, 1);
});

/** A server that answers every request so, whatever range it is asked for. */
const answering = (body: Uint8Array, status: number, range?: string): HttpSource =>
  new HttpSource('brain.tinc', () => Promise.resolve(new Response(body.slice(), { status, headers: range ? { 'Content-Range': `bytes ${range}` } : {} })));

test('an answer of another range, or one that is cut off or too long, is an error', async () => {
  const ten = FILE.slice(10, 20);
  assert.deepEqual(await answering(ten, 206, '10-19/999').read(10, 20), ten);
  await assert.rejects(answering(ten, 206, '11-20/999').read(10, 20), /brain\.tinc.*another range/);
  await assert.rejects(answering(ten, 206, '10-18/999').read(10, 20), /brain\.tinc.*another range/);
  await assert.rejects(answering(ten, 206).read(10, 20), /brain\.tinc.*Content-Range/);
  await assert.rejects(answering(ten, 206, '10-19/*').read(10, 20), /brain\.tinc.*Content-Range/);
  await assert.rejects(answering(ten.slice(1), 206, '10-19/999').read(10, 20), /brain\.tinc.*9 bytes/);
  await assert.rejects(answering(FILE, 206, '10-19/999').read(10, 20), /at most 10 bytes of brain\.tinc/);
});

test('of an endless answer no more is taken than the limit', async () => {
  let sent = 0;
  const body = new ReadableStream({ pull: (controller) => { controller.enqueue(new Uint8Array(2 ** 22)); sent += 2 ** 22; } });
  const endless = new HttpSource('brain.tinc', () => Promise.resolve(new Response(body, { status: 200 })));
  await assert.rejects(endless.read(0, 10), /at most 268435456 bytes of brain\.tinc/);
  assert.ok(sent < 2 ** 28 + 2 ** 24, `${sent} bytes were taken`);
});

test('a file that is replaced while it is read is an error', async () => {
  let size = 999;
  const source = new HttpSource('brain.tinc', () => Promise.resolve(new Response(FILE.slice(0, 10), { status: 206, headers: { 'Content-Range': `bytes 0-9/${size++}` } })));
  await source.read(0, 10);
  await assert.rejects(source.read(0, 10), /brain\.tinc.*replaced/);
});

test('an answer without the file is an error that says which', async () => {
  await assert.rejects(Volume.open(new HttpSource('brain.tinc', server(404).fetcher)), /brain\.tinc.*404/);
});
