import { type Described, Quality, type Scale, type Triple } from '../index.js';
import { CHANNEL_COLORS, type ColorName, nearestColor } from './colors.js';
import type { OpenFile } from './protocol.js';

export const LAYOUTS = ['four', 'xy', 'xz', 'yz', 'max'] as const;
export type Layout = (typeof LAYOUTS)[number];
export const MEASURES = ['off', 'PSNR', 'largest error', 'Dice'] as const;
export type Measure = (typeof MEASURES)[number];
export const COMPARISONS = ['first', 'second', 'side by side', 'flicker'] as const;
export type Comparison = (typeof COMPARISONS)[number];

export interface Channel {
  name: string;
  visible: boolean;
  color: ColorName;
  low: number;
  high: number;
  /** What the sliders go over. */
  readonly minimum: number;
  readonly maximum: number;
}

export interface OpenedFile extends OpenFile {
  readonly name: string;
  readonly bytes: number | undefined;
  /** By item, as far as they were asked for: a file may have thousands of items. */
  readonly scales: Map<number, readonly Scale[]>;
}

/** Everything that is shown follows from this; views change it and are told. */
export class Model {
  readonly files: (OpenedFile | undefined)[];
  channels: Channel[] = [];
  channel = 0;
  time = 0;
  /** Voxels, per axis of the volume. */
  cursor: [number, number, number] = [0, 0, 0];
  /** What is in the middle of the views, in units, and how many CSS pixels a unit has; 0 until a view fits the volume. */
  centre: [number, number, number] = [0, 0, 0];
  zoom = 0;
  layout: Layout = 'four';
  measure: Measure = 'off';
  comparison: Comparison = 'first';
  /** Which file flickering shows. */
  flicker = 0;
  crosshair = true;
  private readonly listeners: (() => void)[] = [];
  private scheduled = false;

  constructor(
    count: number,
    private readonly wantScales: (file: number, item: number) => void,
  ) {
    this.files = Array.from({ length: count }, () => undefined);
  }

  get main(): OpenedFile {
    return this.files[0]!;
  }

  get frame(): Described {
    return this.main.frame;
  }

  /** The spatial shape as three axes, as decoders see it. */
  get shape(): Triple {
    const { spatialShape } = this.frame;
    return [...(spatialShape.length === 2 ? [1] : []), ...spatialShape] as unknown as Triple;
  }

  /** The letters of these axes. */
  get letters(): string {
    return this.frame.spatialAxes.padStart(3, 'z');
  }

  get voxelSize(): Triple {
    const { axes, metadata } = this.frame;
    return [...this.letters].map((letter) => (axes.includes(letter) ? metadata.voxelSize[axes.indexOf(letter)]! : 1)) as unknown as Triple;
  }

  get unit(): string {
    const { axes, metadata } = this.frame;
    return metadata.units[axes.indexOf('x')]!;
  }

  get times(): number {
    const { axes, shape } = this.frame;
    return axes.includes('t') ? shape[axes.indexOf('t')]! : 1;
  }

  /** The item of a channel at the time that is shown. */
  item(channel = this.channel): number {
    const { axes, shape } = this.frame;
    let item = 0;
    [...axes].forEach((axis, i) => {
      if (axis === 't') item = item * shape[i]! + this.time;
      else if (axis === 'c') item = item * shape[i]! + channel;
    });
    return item;
  }

  quality(file: number): Quality | undefined {
    const { frame, quality } = this.files[file]!;
    const bytes = quality[this.item()];
    return bytes && new Quality(bytes, frame, this.item());
  }

  /** Undefined until they have come. */
  scales(file: number, item: number): readonly Scale[] | undefined {
    const { scales } = this.files[file]!;
    if (!scales.has(item)) {
      scales.set(item, []);
      this.wantScales(file, item);
    }
    const found = scales.get(item)!;
    return found.length ? found : undefined;
  }

  /** Files that the views show now. */
  get shown(): readonly number[] {
    if (this.comparison === 'side by side') return [0, 1];
    return [this.comparison === 'second' ? 1 : this.comparison === 'flicker' ? this.flicker : 0];
  }

  /** The file that is spoken of beside the views. */
  get described(): number {
    return this.comparison === 'second' ? 1 : 0;
  }

  start(): void {
    const { axes, shape, items, metadata } = this.frame;
    const count = axes.includes('c') ? shape[axes.indexOf('c')]! : 1;
    this.channels = Array.from({ length: count }, (_, channel) => {
      const { minimum, maximum } = items[this.item(channel)]!;
      const [low, high] = metadata.display.contrastLimits?.[channel] ?? [minimum, maximum];
      const asked = metadata.display.colors?.[channel];
      const color = asked === undefined ? (count > 1 ? CHANNEL_COLORS[channel % CHANNEL_COLORS.length]! : 'gray') : nearestColor(asked);
      return { name: metadata.channelNames[channel] ?? `channel ${channel + 1}`, visible: channel < 4, color, low, high, minimum, maximum };
    });
    this.cursor = this.shape.map((n) => n >> 1) as [number, number, number];
  }

  /** Move the crosshair, as far as the volume goes. */
  moveTo(place: readonly number[]): void {
    this.cursor = place.map((at, axis) => Math.min(this.shape[axis]! - 1, Math.max(0, Math.round(at)))) as [number, number, number];
    this.changed();
  }

  /** Bring a place into the middle of all views. */
  lookAt(place: readonly number[]): void {
    this.centre = place.map((at, axis) => (at + 0.5) * this.voxelSize[axis]!) as [number, number, number];
    this.moveTo(place);
  }

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  /** Tell everybody, once before the next picture is drawn. */
  changed(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      for (const listener of this.listeners) listener();
    });
  }
}
