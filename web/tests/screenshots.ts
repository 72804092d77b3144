// Pictures of pages: node screenshots.mjs PAGE.html|ADDRESS OUT.png [light|dark] [WIDTHxHEIGHT] [KEYS], for docs/make_page_pictures.py.
import { Chromium, findChromium } from './chromium.js';

const [page, out, scheme = 'light', size = '1280x860', keys = ''] = process.argv.slice(2) as [string, string, ...string[]];
const [width, height] = size.split('x').map(Number) as [number, number];
const ready = "document.body?.dataset.sharpPicture && !document.querySelector('.view[data-busy]')";
const browser = new Chromium(findChromium()!);
const tab = await browser.open(/^https?:/.test(page) ? page : `file://${page}`, { width, height, dark: scheme === 'dark', touch: width < 600 });
await tab.until(ready, 60);
for (const key of keys) await tab.press(key);
await new Promise((resolve) => setTimeout(resolve, 500));
await tab.until(ready, 60);
await tab.screenshot(out);
await browser.close();
