// How fast pages are in this machine's Chromium: node bench.mjs FILE.tinc PAGE.html, for benchmarks/web.py.
import { readFileSync } from 'node:fs';
import { Volume } from '../src/index.js';
import { Chromium, findChromium } from './chromium.js';

const [file, page] = process.argv.slice(2) as [string, string];
const browser = new Chromium(findChromium()!);
const first: number[] = [], sharp: number[] = [];
for (let i = 0; i < 5; i++) {
  const tab = await browser.open(`file://${page}`);
  await tab.until('document.body?.dataset.sharpPicture', 60);
  const said = await tab.evaluate<{ firstPicture: string; sharpPicture: string }>('({ ...document.body.dataset })');
  first.push(Number(said.firstPicture));
  sharp.push(Number(said.sharpPicture));
  await tab.close();
}
const tab = await browser.open('about:blank');
await tab.evaluate(`${readFileSync(new URL('in_browser.js', import.meta.url), 'utf8')};0`);
const times = await tab.evaluate<object>(`times('${readFileSync(file).toString('base64')}')`);

// On a machine with other work, what a plane costs of processors says more than a clock: here in one thread of node.
const cpu: number[] = [];
for (let i = 0; i < 5; i++) {
  const volume = await Volume.open(new Uint8Array(readFileSync(file)));
  const [depth, height, width] = volume.shape;
  const began = process.cpuUsage();
  await volume.samples(0, 0, [depth >> 1, (depth >> 1) + 1, 0, height, 0, width]);
  const { user, system } = process.cpuUsage(began);
  cpu.push((user + system) / 1000);
}
const { product } = (await browser.send('Browser.getVersion')) as { product: string };
console.log(JSON.stringify({ product, first, sharp, cpu: cpu.slice(1), ...times }));
await browser.close();
