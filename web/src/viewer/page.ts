import workerCode from 'tinc:worker';
import type { ArrayDescription } from './array.js';
import { decodeBase64 } from '../base64.js';
import { Decoder, type Listener } from './decoder.js';
import { MODELS } from '../frame.js';
import { button, el } from './dom.js';
import { LAYOUTS, Model } from './model.js';
import { Panel } from './panel.js';
import type { FileSource } from './protocol.js';
import { type Orientation, View } from './view.js';
import { bytesText, dtypeText, NETWORK_TEXT, shapeText } from './words.js';

const FLICKER_MS = 600;

/** What Python writes into the page about its files. */
interface Embedded {
  readonly name: string;
  readonly bytes: number;
  /** The element with the bytes in base64, or the address of the file beside the page. */
  readonly element?: string;
  readonly url?: string;
  /** What is known of an array: its address is that of a folder. */
  readonly array?: ArrayDescription;
}

function sourceOf(file: Embedded): FileSource {
  if (file.url !== undefined) return { url: new URL(file.url, location.href).href, array: file.array };
  const element = document.getElementById(file.element!)!;
  const bytes = decodeBase64(element.textContent.trim());
  element.remove();
  return { bytes };
}

class Page implements Listener {
  private readonly files = JSON.parse(document.getElementById('files')!.textContent) as Embedded[];
  private readonly model = new Model(this.files.length, (file, item) => this.decoder.ask({ kind: 'scales', file, item }));
  private readonly decoder = new Decoder(workerCode, this);
  private readonly views = el('main', { class: 'views' });
  private readonly notes = el('div', { class: 'notes', role: 'status' }, [el('p', {}, ['Reading…'])]);
  private shown: View[] = [];
  private panel: Panel | undefined;
  private answered = 0;
  private time = 0;
  private readonly began = performance.now();

  constructor() {
    document.body.append(this.notes);
    if (this.files.some((file) => file.url !== undefined) && location.protocol === 'file:') {
      this.note('Browsers do not let a page on disk read the file beside it. Put the folder on a web server, or run “python -m http.server” in it and open the address that it prints.');
      return;
    }
    this.decoder.open(this.files.map(sourceOf));
  }

  private note(text: string): void {
    // What is wrong with a file is often wrong in every view.
    const others = [...this.notes.children].filter(({ textContent }) => textContent !== 'Reading…' && textContent !== text);
    this.notes.replaceChildren(...others, el('p', {}, [text]));
  }

  opened(file: number, opened: Parameters<Listener['opened']>[1]): void {
    const { name, bytes } = this.files[file]!;
    this.model.files[file] = { ...opened, name, bytes, scales: new Map() };
    this.ready();
  }

  private ready(): void {
    this.answered++;
    if (this.answered < this.files.length || !this.model.files[0]) return;
    const second = this.model.files[1];
    if (second && (second.frame.shape.join() !== this.model.frame.shape.join() || second.frame.axes !== this.model.frame.axes || !second.decodable)) {
      this.note(`${second.name} has another shape, or holds a network: it is not compared.`);
      this.model.files.pop();
    } else if (this.files.length > 1 && !second) this.model.files.length = 1;
    this.notes.replaceChildren(...[...this.notes.children].filter((child) => child.textContent !== 'Reading…'));
    this.show();
  }

  private show(): void {
    const { model } = this;
    model.start();
    const { frame, decodable, name, bytes } = model.main;
    const title = frame.metadata.name || name;
    document.title = title;
    const facts = `${shapeText(frame)} · ${dtypeText(frame.dtype)} · ${bytesText(bytes ?? frame.size)}`;
    const header = el('header', {}, [el('h1', {}, [title]), el('p', {}, [facts])]);
    if (decodable) this.shown = this.orientations().map((each) => new View(each, model, (key, wanted) => this.decoder.ask({ kind: 'picture', key, wanted })));
    else this.note(NETWORK_TEXT(MODELS[frame.model]!));
    this.panel = new Panel(model, (channel) => this.shown[0]?.valueAt(model.shown[0]!, channel), () => this.fit());
    this.views.append(...this.shown.map((view) => view.element));
    this.views.append(this.notes);
    const fold = button('≡', 'show or hide the panel', () => document.body.toggleAttribute('data-folded'));
    header.append(fold);
    document.body.append(header, this.views, this.panel.element);
    if (this.shown.length === 1) model.layout = 'xy';
    model.centre = model.shape.map((n, axis) => (n / 2) * model.voxelSize[axis]!) as [number, number, number];
    model.onChange(() => this.update());
    document.addEventListener('keydown', (event) => this.key(event));
    setInterval(() => {
      if (model.comparison !== 'flicker' || document.hidden) return;
      model.flicker = 1 - model.flicker;
      model.changed();
    }, FLICKER_MS);
    this.askHistograms();
    model.changed();
  }

  private askHistograms(): void {
    if (!this.model.main.decodable) return;
    this.model.channels.forEach((_, channel) => this.decoder.ask({ kind: 'histogram', file: 0, item: this.model.item(channel) }));
  }

  private orientations(): Orientation[] {
    const [x, y, z] = ['x', 'y', 'z'].map((letter) => this.model.letters.indexOf(letter)) as [number, number, number];
    const flat = { name: 'xy', h: x, v: y, d: z, maximum: false };
    if (this.model.shape[z] === 1) return [flat];
    return [
      flat,
      { name: 'yz', h: z, v: y, d: x, maximum: false },
      { name: 'xz', h: x, v: z, d: y, maximum: false },
      { name: 'maximum', h: x, v: y, d: z, maximum: true },
    ];
  }

  private fit(): void {
    this.model.zoom = 0;
    this.model.centre = this.model.shape.map((n, axis) => (n / 2) * this.model.voxelSize[axis]!) as [number, number, number];
    this.model.changed();
  }

  private update(): void {
    const { model } = this;
    this.views.dataset['layout'] = model.layout;
    if (this.time !== model.time) {
      this.time = model.time;
      this.askHistograms();
    }
    const visible = this.shown.filter((view) => view.element.offsetParent);
    if (!model.zoom && visible.length && visible.every((view) => view.size[0] > 0)) model.zoom = Math.min(...visible.map((view) => view.fit));
    for (const view of this.shown) view.update();
  }

  picture(...[key, wanted, picture]: Parameters<Listener['picture']>): void {
    const name = key.split('/')[0];
    this.shown.find((view) => view.orientation.name === name)?.take(key, wanted, picture);
    document.body.dataset['firstPicture'] ??= String(Math.round(performance.now() - this.began));
    if (picture.last && name === 'xy') document.body.dataset['sharpPicture'] ??= String(Math.round(performance.now() - this.began));
  }

  scales(...[file, item, scales]: Parameters<Listener['scales']>): void {
    this.model.files[file]!.scales.set(item, scales);
    this.model.changed();
  }

  histogram(file: number, item: number, samples: Float32Array): void {
    if (file === 0) this.panel?.takeHistogram(item, samples);
  }

  failed(file: number, key: string | undefined, message: string): void {
    this.note(`${this.files[file]!.name}: ${message}`);
    if (key) this.shown.find((view) => view.orientation.name === key.split('/')[0])?.failed(key);
    else if (!this.model.files[file]) this.ready();
  }

  private key(event: KeyboardEvent): void {
    const { model } = this;
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLSelectElement) return;
    const layout = LAYOUTS[Number(event.key) - 1];
    const next = <T>(options: readonly T[], now: T): T => options[(options.indexOf(now) + 1) % options.length]!;
    if (layout && this.shown.length > 1) [model.layout, model.zoom] = [layout, 0];
    else if (event.key === '0') this.fit();
    else if (event.key === 'q') model.measure = next(['off', 'PSNR', 'largest error', 'Dice'] as const, model.measure);
    else if (event.key === 'c') model.crosshair = !model.crosshair;
    else if (event.key === 'a') this.panel?.autoContrast();
    else if (event.key === 'f' && model.files.length > 1) model.comparison = next(['first', 'second', 'flicker'] as const, model.comparison);
    else if (event.key === ' ' && model.files.length > 1 && event.target === document.body) model.comparison = model.comparison === 'first' ? 'second' : 'first';
    else if (event.key === '[' || event.key === ']') model.time = Math.min(model.times - 1, Math.max(0, model.time + (event.key === ']' ? 1 : -1)));
    else return;
    event.preventDefault();
    model.changed();
  }
}

new Page();
