// The pages in a real browser. tests/test_share.py makes them, and what is expected of them, and runs this.
import assert from 'node:assert/strict';
import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test, type TestContext } from 'node:test';
import { HttpSource, Volume } from '../src/index.js';
import { Chromium, findChromium, type Tab } from './chromium.js';
import { itemOf, valuesOf } from './expected.js';
import { readNpz } from './npz.js';

const FOLDER = process.env['TINC_PAGES'];
const GOLDEN = new URL('../../../tests/golden/', import.meta.url);
const skip = FOLDER ? false : 'TINC_PAGES names no folder';
let browser: Chromium;

before(() => {
  if (skip) return;
  const binary = findChromium();
  assert.ok(binary, 'expected a Chromium on this machine; CHROMIUM may name one');
  browser = new Chromium(binary);
});
after(() => browser?.close());

async function openPage(name: string, options: Parameters<Chromium['open']>[1] = {}): Promise<Tab> {
  const tab = await browser.open(name.startsWith('http') ? name : `file://${FOLDER}/${name}`, options);
  await tab.until("document.querySelector('aside')");
  return tab;
}

const decoded = "document.body.dataset.sharpPicture && !document.querySelector('.view[data-busy]')";
const textOf = (selector: string): string => `document.querySelector(${JSON.stringify(selector)})?.textContent`;

test('every golden file is decoded in the browser as it is in Python', { skip }, async () => {
  const tab = await browser.open('about:blank');
  await tab.evaluate(`${readFileSync(new URL('in_browser.js', import.meta.url), 'utf8')};0`);
  for (const name of readdirSync(GOLDEN).filter((each) => each.endsWith('.tinc'))) {
    const file = readFileSync(new URL(name, GOLDEN));
    const said = await tab.evaluate<{ error?: string; step: number; items?: (number | string)[][] }>(`decode('${file.toString('base64')}')`);
    const { frame, decodable } = await Volume.open(new Uint8Array(file));
    if (!decodable) {
      assert.equal(said.error, 'UnsupportedError', name);
      continue;
    }
    assert.equal(said.error, undefined, name);
    const { dtype, bytes } = readNpz(new URL(name.replace('.tinc', '.npz'), GOLDEN)).get('decoded')!;
    said.items!.forEach((voxels, item) => {
      const { minimum, maximum } = frame.items[item]!;
      const tolerance = frame.model === 4 || frame.model === 32 ? 0 : dtype[1] === 'f' ? 1e-5 * (maximum - minimum) : 1;
      const values = itemOf(frame, valuesOf(dtype, bytes), item);
      assert.equal(voxels.length, Math.ceil(values.length / said.step));
      voxels.forEach((voxel, i) => {
        const [told, expected] = [Number(voxel), Number(values[i * said.step])];
        assert.ok(Object.is(told, expected) || Math.abs(told - expected) <= tolerance, `${name}: ${told}, expected ${expected}`);
      });
    });
  }
  await tab.close();
});

interface Plane {
  readonly values: ArrayLike<number>;
  readonly rows: number;
  readonly columns: number;
  readonly minimum: number;
  readonly maximum: number;
}

/** Show the plane across z alone and over the whole range, and compare its pixels with the voxels that Python computes. */
async function comparePixels(tab: Tab, { values, rows, columns, minimum, maximum }: Plane): Promise<void> {
  for (const key of ['2', 'c']) await tab.press(key);
  await tab.evaluate("[...document.querySelectorAll('button')].find((each) => each.textContent === 'full').click()");
  await tab.evaluate('new Promise((resolve) => setTimeout(resolve, 300))');
  await tab.until(decoded);
  const { width, height, pixels } = await tab.evaluate<{ width: number; height: number; pixels: string }>(`(() => {
    const canvas = document.querySelector('[data-view=xy] canvas');
    const { width, height } = canvas;
    const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
    let reds = '';
    for (let i = 0; i < data.length; i += 4) reds += String.fromCharCode(data[i]);
    return { width, height, pixels: btoa(reds) };
  })()`);
  const reds = Buffer.from(pixels, 'base64');
  const zoom = 0.96 * Math.min(width / columns, height / rows);
  assert.ok(zoom > 3, 'voxels are squares on the screen');
  let compared = 0;
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) {
      const column = Math.floor(width / 2 + (x + 0.5 - columns / 2) * zoom), row = Math.floor(height / 2 + (y + 0.5 - rows / 2) * zoom);
      // The scale bar covers the lower left corner.
      if (row > height - 40 && column < 200) continue;
      const expected = (255 * (values[y * columns + x]! - minimum)) / (maximum - minimum);
      const got = reds[row * width + column]!;
      assert.ok(Math.abs(got - expected) <= 1.5, `voxel ${y}, ${x}: ${got}, expected ${expected}`);
      compared++;
    }
  assert.ok(compared > 0.9 * rows * columns);
  const middle = values[(rows >> 1) * columns + (columns >> 1)]!;
  const shown = Number((await tab.evaluate<string>(textOf('.cursor b'))).replaceAll(',', '').split('/')[0]);
  assert.ok(Math.abs(shown - middle) <= Math.max(1, middle / 100), `${shown}, expected ${middle}`);
}

for (const [name, what] of [['volume', 'a slice on the screen has'], ['exact', 'a file without loss is shown piece by piece, and in the end has']] as const)
  test(`${what} the pixels that Python computes`, { skip }, async () => {
    const tab = await openPage(`${name}.html`);
    await tab.until(decoded);
    const { minimum, maximum } = (await Volume.open(new Uint8Array(readFileSync(`${FOLDER}/${name}.tinc`)))).frame.items[0]!;
    const { dtype, shape, bytes } = readNpz(new URL(`file://${FOLDER}/${name}.npz`)).get('decoded')!;
    const [planes, rows, columns] = shape as [number, number, number];
    const values = (valuesOf(dtype, bytes) as Uint16Array).subarray((planes >> 1) * rows * columns);
    await comparePixels(tab, { values, rows, columns, minimum, maximum });
    assert.deepEqual(tab.complaints(), []);
    await tab.close();
  });

test('octants, their numbers and the weakest of them are those of the file', { skip }, async () => {
  const tab = await openPage('volume.html');
  await tab.until(decoded);
  const volume = await Volume.open(new Uint8Array(readFileSync(`${FOLDER}/volume.tinc`)));
  const quality = (await volume.quality(0))!;
  const worst = Math.min(...Array.from({ length: quality.octants }, (_, octant) => quality.psnr(octant)));
  assert.equal(await tab.evaluate(textOf('.worst b')), `${worst.toFixed(1)} dB`);
  const before = await tab.evaluate<string>(textOf('.cursor span'));
  await tab.evaluate("document.querySelector('.worst button').click()");
  await tab.until(`${textOf('.cursor span')} !== ${JSON.stringify(before)}`);
  assert.equal(await tab.evaluate(textOf('.legend:not([hidden]) span')), 'weak');
  await tab.close();
});

test('what a file says of itself is text, whatever it says', { skip }, async () => {
  const tab = await openPage('hostile.html');
  await tab.until(decoded);
  const { frame } = await Volume.open(new Uint8Array(readFileSync(`${FOLDER}/hostile.tinc`)));
  assert.equal(await tab.evaluate(textOf('h1')), frame.metadata.name);
  assert.match(frame.metadata.name, /<\/script>/);
  assert.equal(await tab.evaluate("document.querySelectorAll('img, iframe, a, body script:not([type]):nth-of-type(n + 9)').length"), 0);
  assert.equal(await tab.evaluate('typeof globalThis.pwned'), 'undefined');
  await tab.close();
});

test('the page cannot use a network, and says so in its policy', { skip }, async () => {
  const tab = await openPage('volume.html');
  const refused = await tab.evaluate<string>("fetch('https://example.org/').then(() => 'fetched', (error) => error.name)");
  assert.equal(refused, 'TypeError');
  assert.match(await tab.evaluate<string>("document.querySelector('meta[http-equiv]').content"), /default-src 'none'.*connect-src 'none'/);
  await tab.close();
});

test('two files are compared, side by side and by flicker', { skip }, async () => {
  const tab = await openPage('two.html');
  await tab.until(decoded);
  await tab.evaluate("[...document.querySelectorAll('button')].find((each) => each.textContent === 'side by side').click()");
  await tab.evaluate('new Promise((resolve) => setTimeout(resolve, 300))');
  await tab.until(decoded);
  const halves = await tab.evaluate<[number, number]>(`(() => {
    const canvas = document.querySelector('[data-view=xy] canvas');
    const { width, height } = canvas;
    const sum = (left) => canvas.getContext('2d').getImageData(left, height / 2, width / 2, 1).data.reduce((total, value) => total + value, 0);
    return [sum(0), sum(width / 2)];
  })()`);
  assert.ok(halves[0] > 0 && halves[1] > 0);
  assert.deepEqual(tab.complaints(), []);
  await tab.close();
});

test('a file with a network says that it cannot be shown, and shows what can be', { skip }, async () => {
  const tab = await openPage('network.html');
  assert.match(await tab.evaluate<string>(textOf('.notes')), /neural network/);
  assert.match(await tab.evaluate<string>(textOf('aside')), /Weakest octants.*dB/s);
  await tab.close();
});

test('an image, time points and a narrow screen with touch are shown', { skip }, async () => {
  for (const name of ['image.html', 'time.html']) {
    const tab = await openPage(name, { width: 390, height: 780, dark: true, touch: true });
    await tab.until(decoded);
    assert.deepEqual(tab.complaints(), []);
    await tab.close();
  }
});

/** A server of a folder that answers range requests, and counts the bytes that it sends so; it ends with the test. */
async function serve(context: TestContext, folder: string, sent: { bytes: number; paths: string[] }): Promise<string> {
  const server = createServer((request, response) => {
    const path = `${FOLDER}/${folder}${request.url === '/' ? '/index.html' : request.url}`;
    if (!existsSync(path)) return void response.writeHead(404).end();
    const range = /bytes=(\d*)-(\d+)/.exec(request.headers.range ?? '');
    const { size } = statSync(path);
    if (!range) return void createReadStream(path).pipe(response.writeHead(200, { 'Content-Type': 'text/html' }));
    const [start, end] = range[1] ? [Number(range[1]), Math.min(size - 1, Number(range[2]))] : [Math.max(0, size - Number(range[2])), size - 1];
    sent.bytes += end - start + 1;
    sent.paths.push(request.url!);
    response.writeHead(206, { 'Content-Range': `bytes ${start}-${end}/${size}` });
    return void createReadStream(path, { start, end }).pipe(response);
  });
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

test('of a file beside the page no more is fetched than a view needs', { skip }, async (context) => {
  const sent = { bytes: 0, paths: [] };
  const address = await serve(context, 'folder', sent);
  const { size } = statSync(`${FOLDER}/folder/volume.tinc`);
  const volume = await Volume.open(new HttpSource(`${address}volume.tinc`));
  await volume.voxels(0, [150, 151, 0, 160, 0, 160]);
  assert.ok(sent.bytes > 0.1 * size && sent.bytes < 0.35 * size, `one plane took ${sent.bytes} of ${size} bytes`);
  sent.bytes = sent.paths.length = 0;
  const tab = await openPage(address);
  await tab.until(decoded);
  // Three planes through the middle meet 19 of 27 blocks of the finest octave, which are the largest ones.
  assert.ok(sent.bytes > 0.3 * size && sent.bytes < 0.95 * size, `${sent.bytes} of ${size} bytes`);
  assert.ok(sent.paths.length < 40, `${sent.paths.length} requests`);
  const before = sent.bytes;
  await tab.press('2');
  await tab.evaluate("document.querySelector('[data-view=xy] canvas').focus()");
  await tab.press('PageDown');
  await tab.until(decoded);
  assert.ok(sent.bytes - before < 0.05 * size, 'the next plane is in the same blocks');
  await tab.close();
});

test('of an array beside the page the chunks in view are fetched, coarse ones first, and have the pixels that Python computes', { skip }, async (context) => {
  const sent = { bytes: 0, paths: [] as string[] };
  const address = await serve(context, 'array', sent);
  const tab = await openPage(address);
  await tab.until(decoded);
  const level = (path: string): string => path.split('/')[2]!;
  assert.equal(level(sent.paths[0]!), '1', 'the coarse level comes first');
  assert.ok(sent.paths.some((path) => level(path) === '0'));
  assert.match(await tab.evaluate<string>(textOf('aside')), /Weakest chunks.*dB/s);
  await tab.evaluate("document.querySelectorAll('.channels input')[1].click()"); // the first channel alone
  const arrays = readNpz(new URL(`file://${FOLDER}/array.npz`));
  const { dtype, shape, bytes } = arrays.get('0')!;
  const [minimum, maximum] = valuesOf('<f8', arrays.get('range')!.bytes) as unknown as [number, number];
  const [, planes, rows, columns] = shape as [number, number, number, number];
  const values = (valuesOf(dtype, bytes) as Uint16Array).subarray((planes >> 1) * rows * columns);
  await tab.evaluate("[...document.querySelectorAll('.channels select')].forEach((each) => { each.value = 'gray'; each.dispatchEvent(new Event('change')); })");
  await comparePixels(tab, { values, rows, columns, minimum, maximum });
  assert.deepEqual(tab.complaints(), []);
  await tab.close();
});
