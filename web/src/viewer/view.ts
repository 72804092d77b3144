import type { Box, Triple } from '../index.js';
import { colorTable } from './colors.js';
import { el } from './dom.js';
import { attend } from './gestures.js';
import type { Model } from './model.js';
import { drawCrosshair, drawOctants, drawScaleBar } from './overlays.js';
import type { Picture, Wanted } from './protocol.js';

/** Planes of no more samples than this are decoded whole; of larger ones, and of arrays of chunks, what is in view. */
const WHOLE_PLANE = 2 ** 20;
/** What is in view is rounded to multiples of this, so that small moves need nothing new. */
const ROUND = 128;
/** From so many pixels a voxel on, voxels are shown as what they are: squares. */
const SQUARES = 3;

/** Horizontal, vertical and across: axes of the volume. */
export interface Orientation {
  readonly name: string;
  readonly h: number;
  readonly v: number;
  readonly d: number;
  readonly maximum: boolean;
}

interface Shown {
  readonly picture: Picture;
  canvas?: HTMLCanvasElement;
  look?: string;
}

/** Where a pane draws, and how voxels become CSS pixels in it. */
export interface Pane {
  readonly file: number;
  readonly left: number;
  readonly width: number;
  readonly height: number;
  x(voxel: number): number;
  y(voxel: number): number;
}

export class View {
  readonly canvas = el('canvas', { tabindex: '0' });
  readonly element: HTMLElement;
  private readonly place = el('output');
  private readonly depth = el('input', { type: 'range', min: '0', step: '1' });
  /** The last pictures by file and channel: a coarse one of the whole plane under a sharp one. */
  private readonly pictures = new Map<string, Shown[]>();
  private readonly asked = new Map<string, string>();
  /** Since when pictures are waited for. */
  private readonly busy = new Map<string, number>();

  constructor(
    readonly orientation: Orientation,
    private readonly model: Model,
    private readonly ask: (key: string, wanted: Wanted) => void,
  ) {
    const { name, maximum } = orientation;
    this.canvas.setAttribute('aria-label', `${name}: drag moves the crosshair, wheel changes the plane`);
    this.depth.setAttribute('aria-label', `plane of ${name}`);
    this.depth.addEventListener('input', () => this.goTo(Number(this.depth.value)));
    const head = el('figcaption', {}, [el('b', {}, [name]), ...(maximum ? [] : [this.depth]), this.place]);
    this.element = el('figure', { class: 'view', 'data-view': name }, [head, this.canvas]);
    attend(this, model);
    new ResizeObserver(() => this.model.changed()).observe(this.canvas);
  }

  get size(): [number, number] {
    return [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  /** The zoom at which all of the volume is in view. */
  get fit(): number {
    const [width, height] = this.size;
    const { h, v } = this.orientation;
    const { shape, voxelSize, shown } = this.model;
    return 0.96 * Math.min(width / shown.length / (shape[h]! * voxelSize[h]!), height / (shape[v]! * voxelSize[v]!));
  }

  goTo(plane: number): void {
    const place = [...this.model.cursor];
    place[this.orientation.d] = plane;
    this.model.moveTo(place);
  }

  panes(): Pane[] {
    const { model } = this;
    const [width, height] = this.size;
    const { h, v } = this.orientation;
    const each = width / model.shown.length;
    return model.shown.map((file, i) => ({
      file,
      left: i * each,
      width: each,
      height,
      x: (voxel) => i * each + each / 2 + (voxel * model.voxelSize[h]! - model.centre[h]!) * model.zoom,
      y: (voxel) => height / 2 + (voxel * model.voxelSize[v]! - model.centre[v]!) * model.zoom,
    }));
  }

  /** The voxel under a place of the canvas, with its fraction. */
  voxelAt(x: number, y: number): [number, number, number] {
    const { h, v } = this.orientation;
    const { centre, zoom, voxelSize } = this.model;
    const pane = this.panes().find(({ left, width }) => x < left + width) ?? this.panes().at(-1)!;
    const place: [number, number, number] = [...this.model.cursor];
    place[h] = (centre[h]! + (x - pane.left - pane.width / 2) / zoom) / voxelSize[h]!;
    place[v] = (centre[v]! + (y - pane.height / 2) / zoom) / voxelSize[v]!;
    return place;
  }

  take(key: string, wanted: Wanted, picture: Picture): void {
    if (this.asked.get(key) !== JSON.stringify(wanted)) return;
    if (!picture.last && !this.busy.has(key)) return; // the sharp one was faster
    const before = this.pictures.get(key) ?? [];
    // A sharp picture lies over the coarse one that came before it for the same plane.
    const under = picture.last && picture.scale < (before.at(-1)?.picture.scale ?? -1) ? before.slice(-1) : [];
    this.pictures.set(key, [...under, { picture }]);
    if (picture.last) this.finish(key);
    this.model.changed();
  }

  failed(key: string): void {
    this.finish(key);
    this.model.changed();
  }

  /** Say how long it took: for the curious, and for benchmarks/web.py. */
  private finish(key: string): void {
    const began = this.busy.get(key);
    this.busy.delete(key);
    if (began !== undefined) this.element.dataset['ms'] = String(Math.round(performance.now() - began));
  }

  private key(file: number, channel: number): string {
    return `${this.orientation.name}/${file}/${channel}`;
  }

  private channels(): number[] {
    return this.model.channels.flatMap((channel, i) => (channel.visible ? [i] : []));
  }

  update(): void {
    if (!this.element.offsetParent || !this.model.zoom) return;
    for (const pane of this.panes()) for (const channel of this.channels()) this.request(pane, channel);
    this.draw();
  }

  private request(pane: Pane, channel: number): void {
    const { h, v, d, maximum } = this.orientation;
    const { model } = this;
    const item = model.item(channel);
    const scales = model.scales(pane.file, item);
    if (!scales) return;
    const pixels = [h, v].map((axis) => model.zoom * model.voxelSize[axis]! * devicePixelRatio);
    let scale = 0;
    while (
      !maximum && scale + 1 < scales.length &&
      [h, v].every((axis, i) => 2 ** scales[scale + 1]!.halvings[axis]! * pixels[i]! <= 1)
    )
      scale++;
    const { shape, halvings } = scales[scale]!;
    const index = maximum ? undefined : model.cursor[d]!;
    const box = [0, shape[0], 0, shape[1], 0, shape[2]];
    const at = maximum ? 0 : Math.min(shape[d]! - 1, index! >> halvings[d]!);
    box[2 * d] = at;
    box[2 * d + 1] = at + 1;
    const most = model.files[pane.file]!.frame.chunk ? 0 : WHOLE_PLANE;
    if (!maximum && shape[h]! * shape[v]! > most) this.crop(box, pane, shape, halvings);
    const wanted: Wanted = { file: pane.file, item, axis: d, index, scale: maximum ? 0 : scale, box: box as unknown as Box };
    const key = this.key(pane.file, channel);
    const words = JSON.stringify(wanted);
    if (this.asked.get(key) === words) return;
    this.asked.set(key, words);
    this.busy.set(key, performance.now());
    this.ask(key, wanted);
  }

  private crop(box: number[], pane: Pane, shape: Triple, halvings: Triple): void {
    const corners = [this.voxelAt(pane.left, 0), this.voxelAt(pane.left + pane.width - 1, pane.height)];
    for (const axis of [this.orientation.h, this.orientation.v]) {
      const [start, stop] = corners.map((corner) => corner[axis]! / 2 ** halvings[axis]!) as [number, number];
      box[2 * axis] = Math.min(shape[axis]! - 1, Math.max(0, ROUND * Math.floor(start / ROUND - 0.25)));
      box[2 * axis + 1] = Math.max(box[2 * axis]! + 1, Math.min(shape[axis]!, ROUND * Math.ceil(stop / ROUND + 0.25)));
    }
  }

  draw(): void {
    const { canvas, model } = this;
    const [width, height] = this.size;
    const ratio = devicePixelRatio;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext('2d')!;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    for (const pane of this.panes()) {
      context.save();
      context.beginPath();
      context.rect(pane.left, 0, pane.width, height);
      context.clip();
      this.channels().forEach((channel, i) => this.drawChannel(context, pane, channel, i > 0));
      context.globalCompositeOperation = 'source-over';
      if (model.measure !== 'off' && !this.orientation.maximum) drawOctants(context, pane, this.orientation, model);
      if (model.crosshair) drawCrosshair(context, pane, this.orientation, model);
      drawScaleBar(context, pane, model, model.shown.length > 1 || model.comparison !== 'first' ? model.files[pane.file]!.name : '');
      context.restore();
    }
    this.describe();
  }

  private drawChannel(context: CanvasRenderingContext2D, pane: Pane, channel: number, add: boolean): void {
    const { h, v } = this.orientation;
    context.globalCompositeOperation = add ? 'lighter' : 'source-over';
    for (const shown of this.pictures.get(this.key(pane.file, channel)) ?? []) {
      const { scale, box, halvings, means } = shown.picture;
      const edge = (axis: number, sample: number): number => {
        const step = 2 ** halvings[axis]!;
        return sample * step + (means ? 0 : 0.5 - step / 2);
      };
      const pixels = this.model.zoom * Math.min(this.model.voxelSize[h]!, this.model.voxelSize[v]!);
      context.imageSmoothingEnabled = scale > 0 || pixels < SQUARES;
      context.imageSmoothingQuality = 'high';
      const left = pane.x(edge(h, box[2 * h]!)), right = pane.x(edge(h, box[2 * h + 1]!));
      const top = pane.y(edge(v, box[2 * v]!)), bottom = pane.y(edge(v, box[2 * v + 1]!));
      context.drawImage(this.rendered(shown, channel), left, top, right - left, bottom - top);
    }
  }

  /** The samples of a picture in the colours of their channel. */
  private rendered(shown: Shown, channel: number): HTMLCanvasElement {
    const { low, high, color } = this.model.channels[channel]!;
    const look = `${low} ${high} ${color}`;
    if (shown.canvas && shown.look === look) return shown.canvas;
    const { h, v } = this.orientation;
    const { samples, box } = shown.picture;
    const width = box[2 * h + 1]! - box[2 * h]!, height = box[2 * v + 1]! - box[2 * v]!;
    const canvas = shown.canvas ?? el('canvas', { width: String(width), height: String(height) });
    const context = canvas.getContext('2d')!;
    const image = context.createImageData(width, height);
    const [columnStep, rowStep] = h > v ? [1, width] : [height, 1];
    const table = colorTable(color);
    const factor = 255 / (high > low ? high - low : 1);
    for (let row = 0, out = 0; row < height; row++)
      for (let column = 0; column < width; column++, out += 4) {
        const value = (samples[row * rowStep + column * columnStep]! - low) * factor;
        const level = 3 * (value >= 255 ? 255 : value > 0 ? Math.round(value) : 0);
        image.data[out] = table[level]!;
        image.data[out + 1] = table[level + 1]!;
        image.data[out + 2] = table[level + 2]!;
        image.data[out + 3] = 255;
      }
    context.putImageData(image, 0, 0);
    shown.canvas = canvas;
    shown.look = look;
    return canvas;
  }

  /** The value at the crosshair, where a sharp picture shows it. */
  valueAt(file: number, channel: number): number | undefined {
    const { h, v, maximum } = this.orientation;
    const shown = this.pictures.get(this.key(file, channel))?.at(-1);
    if (!shown || maximum || shown.picture.scale !== 0) return undefined;
    const { samples, box } = shown.picture;
    const { cursor } = this.model;
    if (box[2 * this.orientation.d] !== cursor[this.orientation.d]) return undefined;
    const column = cursor[h]! - box[2 * h]!, row = cursor[v]! - box[2 * v]!;
    const width = box[2 * h + 1]! - box[2 * h]!, height = box[2 * v + 1]! - box[2 * v]!;
    if (column < 0 || row < 0 || column >= width || row >= height) return undefined;
    const value = samples[h > v ? row * width + column : column * height + row]!;
    return Number.isNaN(value) && !shown.picture.last ? undefined : value;
  }

  /** What is said while there is no picture, or a part of one. */
  private progress(): string {
    const waited = [...this.busy.keys()];
    if (waited.some((key) => !this.pictures.has(key))) return ' · decoding';
    const shares = waited.flatMap((key) => this.pictures.get(key)!.at(-1)!.picture.share ?? []);
    return shares.length ? ` · ${Math.round(100 * Math.min(...shares))} %` : '';
  }

  private describe(): void {
    const { d, maximum } = this.orientation;
    const { cursor, shape, letters } = this.model;
    this.depth.max = String(shape[d]! - 1);
    this.depth.value = String(cursor[d]);
    const place = maximum ? `maximum along ${letters[d]}` : `${letters[d]} ${cursor[d]! + 1} of ${shape[d]}`;
    this.place.textContent = place + this.progress();
    this.element.toggleAttribute('data-busy', this.busy.size > 0);
  }
}
