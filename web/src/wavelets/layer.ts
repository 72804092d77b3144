import { type Box, Grid, sidesOf, type Triple, volumeOf } from '../box.js';
import type { Cursor } from '../cursor.js';
import { forEachLimited, type Means } from '../pool.js';
import type { Part } from '../source.js';
import { parseStreams, type Streams } from '../streams.js';
import type { WaveletResult } from './blocks.js';
import { type BlockShape, CELL, firstFrom, type Parent, type Symbols } from './symbols.js';
import { join, windowOf } from './transform.js';

const MOST_OCTAVES = 93;
const MOST_SYMBOLS = 2 ** 18;
/** Bytes of the statistics of a block. */
const STATISTICS = 14000;

interface Octave {
  readonly mask: number;
  /** What it splits, and the low-pass it leaves. */
  readonly shape: Triple;
  readonly low: Triple;
  readonly bands: readonly number[];
  readonly grid: Grid;
  /** The number of the first block's stream; trunk octaves share stream 0. */
  readonly first: number;
}

interface Head {
  readonly octaves: readonly Octave[];
  readonly step: number;
  readonly offsets: readonly [number, number];
  readonly dc: number;
  readonly trunk: number;
  readonly streams: Streams;
}

interface Decoded {
  readonly symbols: Symbols;
  readonly statistics: WaveletResult['statistics'] | undefined;
}

const EMPTY: Symbols = { positions: new Int32Array(0), values: new Int32Array(0) };

/** What the wavelets of an item say of its regions, at its own scale and at every octave's. */
export class WaveletLayer {
  /** Shapes of the scales, the finest first. */
  readonly shapes: readonly Triple[];
  readonly masks: readonly number[];
  private trunk: Promise<WaveletResult | undefined> | undefined;
  private readonly fetched = new Map<number, Promise<Uint8Array>>();

  private constructor(
    private readonly part: Part,
    private readonly head: Head,
    shape: Triple,
    private readonly means: Means,
  ) {
    this.shapes = [shape, ...head.octaves.map((octave) => octave.low)];
    this.masks = head.octaves.map((octave) => octave.mask);
  }

  static async open(part: Part, shape: Triple, means: Means): Promise<WaveletLayer> {
    const head = await part.parseHead((cursor) => parseHead(cursor, shape, part.length));
    return new WaveletLayer(part, head, shape, means);
  }

  /** The region at a scale, in voxels' units before offset and scale of the item: what is stored there, over its gain. */
  async region(scale: number, box: Box, signal?: AbortSignal): Promise<Float32Array> {
    const samples = await this.lowPass(scale, box, signal);
    const halvings = this.masks.slice(0, scale).reduce((sum, mask) => sum + bitsOf(mask), 0);
    if (halvings) {
      const gain = 2 ** (-halvings / 2);
      for (let i = 0; i < samples.length; i++) samples[i]! *= gain;
    }
    return samples;
  }

  /** What octave `k` splits: the volume for 0, else the low-pass that octave k − 1 leaves. */
  private async lowPass(k: number, box: Box, signal: AbortSignal | undefined): Promise<Float32Array> {
    if (k === this.head.octaves.length) return new Float32Array([this.head.dc * this.head.step]);
    const { mask, shape } = this.head.octaves[k]!;
    const windows = [0, 1, 2].map((axis) => windowOf(box[2 * axis]!, box[2 * axis + 1]!, shape[axis]!));
    const rangeOf = (axis: number, high: boolean): readonly [number, number] =>
      (mask >> axis) & 1 ? (high ? windows[axis]!.highs : windows[axis]!.lows) : [box[2 * axis]!, box[2 * axis + 1]!];
    const boxOf = (orientation: number): Box =>
      [0, 1, 2].flatMap((axis) => rangeOf(axis, ((orientation >> axis) & 1) === 1)) as unknown as Box;
    const [low, bands] = await Promise.all([this.lowPass(k + 1, boxOf(0), signal), this.bands(k, boxOf, signal)]);
    signal?.throwIfAborted();
    const parts = new Map(bands).set(0, low);
    // The thinnest axis first: joining it leaves the least to join along the others.
    const axes = [0, 1, 2].filter((axis) => (mask >> axis) & 1);
    axes.sort((a, b) => box[2 * a + 1]! - box[2 * a]! - (box[2 * b + 1]! - box[2 * b]!));
    const ready = new Set<number>();
    for (const axis of axes) {
      ready.add(axis);
      for (const orientation of [...parts.keys()].filter((o) => !((o >> axis) & 1))) {
        const sides = [0, 1, 2].map((a) => {
          const [start, stop] = ready.has(a) ? [box[2 * a]!, box[2 * a + 1]!] : rangeOf(a, ((orientation >> a) & 1) === 1);
          return stop - start;
        });
        const outer = sides.slice(0, axis).reduce((product, side) => product * side, 1);
        const inner = sides.slice(axis + 1).reduce((product, side) => product * side, 1);
        const high = parts.get(orientation | (1 << axis))!;
        parts.set(orientation, join(parts.get(orientation)!, high, outer, windows[axis]!, inner));
        parts.delete(orientation | (1 << axis));
      }
    }
    return parts.get(0)!;
  }

  /** Coefficients of every band of an octave, of a box each. */
  private async bands(k: number, boxOf: (orientation: number) => Box, signal: AbortSignal | undefined): Promise<Map<number, Float32Array>> {
    const { bands, grid } = this.head.octaves[k]!;
    const boxes = bands.map(boxOf);
    const filled = boxes.map((box) => new Float32Array(volumeOf(sidesOf(box))));
    const wanted = [...new Set(boxes.flatMap((box) => grid.meeting(box)))];
    if (this.isTrunk(k)) await this.decodedTrunk();
    else for (const index of wanted) this.fetchAhead(k, index);
    const place = async (index: number): Promise<void> => {
      const { symbols } = await this.block(k, index);
      this.scatter(symbols, grid.box(index), bands, boxes, filled);
    };
    await forEachLimited(wanted, 2 * this.means.pool.width, place, signal);
    return new Map(bands.map((orientation, i) => [orientation, filled[i]!]));
  }

  private scatter({ positions, values }: Symbols, block: Box, bands: readonly number[], boxes: readonly Box[], filled: readonly Float32Array[]): void {
    const [n0, n1, n2] = sidesOf(block);
    const size = n0 * n1 * n2;
    const { step, offsets } = this.head;
    for (let band = 0; band < bands.length; band++) {
      const box = boxes[band]!;
      const [, height, width] = sidesOf(box);
      const out = filled[band]!;
      // Symbols go in layers of cells along axis 0: of a thin region most need not be looked at.
      const layer = CELL * n1 * n2;
      const firstLayer = Math.floor(Math.max(0, box[0] - block[0]) / CELL);
      const stopLayer = Math.ceil(Math.max(0, Math.min(n0, box[1] - block[0])) / CELL);
      let i = firstFrom(positions, band * size + firstLayer * layer);
      const end = Math.min((band + 1) * size, band * size + stopLayer * layer);
      for (; i < positions.length && positions[i]! < end; i++) {
        const at = positions[i]! - band * size;
        const line = (at / n2) | 0;
        const x = at - line * n2 + block[4];
        if (x < box[4] || x >= box[5]) continue;
        const plane = (line / n1) | 0;
        const y = line - plane * n1 + block[2];
        const z = plane + block[0];
        if (y < box[2] || y >= box[3] || z < box[0] || z >= box[1]) continue;
        const value = values[i]!;
        const magnitude = Math.abs(value);
        const level = (magnitude - offsets[magnitude === 1 ? 0 : 1] / 256) * step;
        out[((z - box[0]) * height + y - box[2]) * width + x - box[4]] = value < 0 ? -level : level;
      }
    }
  }

  private isTrunk(k: number): boolean {
    return k >= this.head.trunk;
  }

  /** Ask for the bytes of a block that is not decoded yet: what is asked for together is fetched in fewer requests. */
  private fetchAhead(k: number, index: number): void {
    const stream = this.head.octaves[k]!.first + index;
    if (this.fetched.has(stream) || this.means.cache.has(this.keyOf(k, index))) return;
    const bytes = this.readStream(stream);
    this.fetched.set(stream, bytes);
    bytes.catch(() => this.fetched.delete(stream));
  }

  private streamOf(k: number, index: number): Promise<Uint8Array> {
    const stream = this.head.octaves[k]!.first + index;
    const bytes = this.fetched.get(stream) ?? this.readStream(stream);
    this.fetched.delete(stream);
    return bytes;
  }

  private readStream(stream: number): Promise<Uint8Array> {
    const { starts, stops } = this.head.streams;
    return this.part.read(starts[stream]!, stops[stream]!);
  }

  private shapeOf(k: number, index: number): BlockShape {
    const { bands, grid } = this.head.octaves[k]!;
    return { bands, sides: sidesOf(grid.box(index)) };
  }

  private decodedTrunk(): Promise<WaveletResult | undefined> {
    this.trunk ??= this.decodeTrunk();
    return this.trunk;
  }

  private async decodeTrunk(): Promise<WaveletResult | undefined> {
    const { streams, octaves, trunk } = this.head;
    const stream = await this.part.read(streams.starts[0]!, streams.stops[0]!);
    if (stream.length === 0 || trunk === octaves.length) return undefined;
    const order = octaves.map((_, k) => k).slice(trunk).reverse();
    const blocks = order.map((k) => this.shapeOf(k, 0));
    const masks = order.map((k) => octaves[k]!.mask);
    return this.means.pool.run({ kind: 'wavelets', stream, blocks, masks, parent: undefined, statistics: undefined });
  }

  private block(k: number, index: number): Promise<Decoded> {
    const sizeOf = ({ symbols }: Decoded): number => 8 * symbols.positions.length + STATISTICS;
    return this.means.cache.get(this.keyOf(k, index), () => this.decodeBlock(k, index), sizeOf);
  }

  private keyOf(k: number, index: number): string {
    return `${this.means.name} ${k} ${index}`;
  }

  private async decodeBlock(k: number, index: number): Promise<Decoded> {
    const { octaves } = this.head;
    if (this.isTrunk(k)) {
      const trunk = await this.decodedTrunk();
      return { symbols: trunk?.symbols[octaves.length - 1 - k] ?? EMPTY, statistics: trunk?.statistics };
    }
    const { first, at, mask } = this.parentOf(k, index);
    const [stream, above] = await Promise.all([this.streamOf(k, index), this.block(k + 1, at)]);
    if (stream.length === 0) return { symbols: EMPTY, statistics: above.statistics };
    const parent: Parent = { shape: this.shapeOf(k + 1, at), symbols: above.symbols, first, mask };
    const result = await this.means.pool.run({
      kind: 'wavelets', stream, blocks: [this.shapeOf(k, index)], masks: [octaves[k]!.mask], parent, statistics: above.statistics,
    });
    return { symbols: result.symbols[0]!, statistics: result.statistics };
  }

  private parentOf(k: number, index: number): { first: Triple; at: number; mask: number } {
    const begin = this.head.octaves[k]!.grid.box(index);
    const { mask, grid } = this.head.octaves[k + 1]!;
    const q = [0, 1, 2].map((axis) => begin[2 * axis]! >> ((mask >> axis) & 1)) as unknown as Triple;
    const at = grid.at(...q);
    const corner = grid.box(at);
    return { first: [q[0] - corner[0], q[1] - corner[2], q[2] - corner[4]], at, mask };
  }
}

function bitsOf(mask: number): number {
  return (mask & 1) + ((mask >> 1) & 1) + ((mask >> 2) & 1);
}

/** Bands of an octave: by the number of axes that they are high-pass along, then by value. */
function bandsOf(mask: number): number[] {
  const bands = [1, 2, 3, 4, 5, 6, 7].filter((orientation) => (orientation & ~mask) === 0);
  return bands.sort((a, b) => bitsOf(a) - bitsOf(b) || a - b);
}

/** The step that a code of two bytes stands for, in wavelet and directional segments. */
export function parseStep(cursor: Cursor): number {
  const code = cursor.u16();
  if (code >= 2 ** 14) cursor.fail(`expected a step code below 2¹⁴, got ${code}`);
  return Math.fround(2 ** (code / 256 - 40));
}

function parseHead(cursor: Cursor, shape: Triple, size: number): Head {
  const code = cursor.byte();
  if (code < 2 || code > 8) cursor.fail(`expected a side code from 2 to 8, got ${code}`);
  const count = cursor.byte();
  if (count > MOST_OCTAVES) cursor.fail(`expected at most ${MOST_OCTAVES} octaves, got ${count}`);
  const masks = cursor.take(count);
  const side = 2 ** code;
  const grids: Grid[] = [];
  let before = shape;
  for (const mask of masks) {
    before = splitShape(cursor, before, mask);
    const grid = new Grid(before, [side, side, side]);
    const symbols = bandsOf(mask).length * volumeOf(sidesOf(grid.box(0)));
    if (symbols > MOST_SYMBOLS) cursor.fail(`expected blocks of at most ${MOST_SYMBOLS} symbols, got ${symbols}`);
    grids.push(grid);
  }
  if (volumeOf(before) !== 1) cursor.fail('expected the last octave to leave one coefficient, got more');
  const step = parseStep(cursor);
  const offsets = [cursor.byte(), cursor.byte()] as const;
  const dc = cursor.zigzag(2 ** 24, 'the DC');
  let trunk = count;
  while (trunk > 0 && grids[trunk - 1]!.length === 1) trunk--;
  const octaves: Octave[] = new Array<Octave>(count);
  let streams = 1;
  for (let k = count - 1; k >= 0; k--) {
    const above = k ? grids[k - 1]!.shape : shape;
    octaves[k] = { mask: masks[k]!, shape: above, low: grids[k]!.shape, bands: bandsOf(masks[k]!), grid: grids[k]!, first: k < trunk ? streams : 0 };
    if (k < trunk) streams += grids[k]!.length;
  }
  return { octaves, step, offsets, dc, trunk, streams: parseStreams(cursor, streams, size) };
}

function splitShape(cursor: Cursor, shape: Triple, mask: number): Triple {
  if (mask < 1 || mask > 7) cursor.fail(`expected a mask from 1 to 7, got ${mask}`);
  const longest = Math.max(...shape);
  return shape.map((n, axis) => {
    const split = (mask >> axis) & 1;
    if (split && n < 2) cursor.fail('expected two samples or more along an axis that is split');
    if (!split && n === longest) cursor.fail('expected the longest axes to be split');
    return split ? Math.ceil(n / 2) : n;
  }) as unknown as Triple;
}

