// How fast pages are in this machine's Chromium: node bench.mjs FILE.tinc PAGE.html, for benchmarks/web.py.
import { readFileSync } from 'node:fs';
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
const { product } = (await browser.send('Browser.getVersion')) as { product: string };
console.log(JSON.stringify({ product, first, sharp, ...times }));
await browser.close();
