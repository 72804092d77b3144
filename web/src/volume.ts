import { type Box, grown, sidesOf, type Triple, volumeOf, wholeBox } from './box.js';
import { DirectionalLayer } from './directional/layer.js';
import { RequestError, UnsupportedError } from './errors.js';
import { CONSTANT, type Dtype, EXACT, type Frame, halfToNumber, headSize, Kind, MODELS, parseFrame, PREDICTIVE, WAVELET } from './frame.js';
import { Mask } from './masks/layer.js';
import { INSIDE, OUTSIDE } from './masks/states.js';
import { Cache, type Means, type Pool } from './pool.js';
import { type Bins, checkLargest, fromNumbers, parseBins } from './predictive/bins.js';
import { Numbers, parseNumbersHead } from './predictive/layer.js';
import { Quality } from './quality.js';
import { parsePostFilter, type PostFilter, postfilter, POSTFILTER_REACH } from './postfilter.js';
import { parseRestoration, RESTORATION_REACH, type Restoration, restore } from './restoration.js';
import { Begun, BytesSource, Part, type Source } from './source.js';
import { inlinePool } from './tasks.js';
import { WaveletLayer } from './wavelets/layer.js';

export type Voxels =
  | Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array | Float32Array | Float64Array | BigInt64Array | BigUint64Array;

/** Samples of a coarser volume: sample i of an axis is at voxel i · 2^halvings (or the mean of voxels from there on). */
export interface Scale {
  readonly shape: Triple;
  readonly halvings: Triple;
  /** Whether a sample is the mean of the voxels that it stands for, and so lies in their middle. */
  readonly means: boolean;
}

/** How many samples the coarsest scale has along its longest axis, where there are no octaves that say it. */
const COARSEST = 64;
/** Voxels that are decoded at once for means of them. */
const MOST_AVERAGED = 2 ** 26;
/** What is decoded and kept, of all items together. */
export const CACHE_BYTES = 2 ** 28;
/** The first read of a file: the head of most, and the coarse octaves of many. */
const FIRST_READ = 2 ** 16;

/** Where decoded blocks are kept, and what their names begin with: volumes may share a cache. */
export interface Kept {
  readonly cache: Cache;
  readonly name: string;
}

interface Layers {
  readonly wavelets?: WaveletLayer | undefined;
  readonly directions?: DirectionalLayer | undefined;
  readonly restoration?: Restoration | undefined;
  readonly postfilter?: PostFilter | undefined;
  readonly mask?: Mask | undefined;
  readonly exact?: Part | undefined;
  readonly predicted?: { readonly bins: Bins; readonly numbers: Numbers } | undefined;
  readonly corrections?: { readonly width: number; readonly numbers: Numbers } | undefined;
}

/** A .tinc file, or a zarr chunk of napari-tinc: what it says of itself, and its voxels region by region. */
export class Volume {
  /** The spatial shape as three axes: behind an axis of one voxel where there are only two. */
  readonly shape: Triple;
  private readonly layers = new Map<number, Promise<Layers>>();
  private readonly scalesOf = new Map<number, Promise<readonly Scale[]>>();

  private constructor(
    readonly frame: Frame,
    private readonly source: Source,
    private readonly pool: Pool,
    private readonly kept: Kept,
  ) {
    const { spatialShape } = frame;
    this.shape = [...(spatialShape.length === 2 ? [1] : []), ...spatialShape] as unknown as Triple;
  }

  static async open(source: Source | Uint8Array, pool: Pool = inlinePool, kept: Kept = { cache: new Cache(CACHE_BYTES), name: '' }): Promise<Volume> {
    const from = source instanceof Uint8Array ? new BytesSource(source) : source;
    let start = await from.read(0, FIRST_READ);
    const size = headSize(start);
    if (size !== undefined && size > start.length) start = await from.read(0, size);
    return new Volume(parseFrame(start, from.size), from instanceof BytesSource ? from : new Begun(from, start), pool, kept);
  }

  /** False for files that hold a network: those are not evaluated here. */
  get decodable(): boolean {
    return [CONSTANT, WAVELET, EXACT, PREDICTIVE].includes(this.frame.model);
  }

  /** What the file says of the quality of an item's octants; undefined where nothing was lost and none is stored. */
  async quality(item: number): Promise<Quality | undefined> {
    const bytes = await this.qualityBytes(item);
    return bytes && new Quality(bytes, this.frame, item);
  }

  /** The same as it is stored. */
  async qualityBytes(item: number): Promise<Uint8Array | undefined> {
    return this.part(item, Kind.quality, 'quality')?.readAll();
  }

  /** The scales of an item, its own first. */
  scales(item: number): Promise<readonly Scale[]> {
    return remember(this.scalesOf, item, async () => {
      const { wavelets } = await this.layersOf(item);
      const masks = wavelets ? wavelets.masks : halvingsOf(this.shape);
      let shape: Triple = this.shape;
      let halvings: Triple = [0, 0, 0];
      const scales: Scale[] = [{ shape, halvings, means: !wavelets }];
      for (const mask of masks) {
        const halve = [0, 1, 2].map((axis) => (mask >> axis) & 1);
        shape = shape.map((n, axis) => (halve[axis] ? Math.ceil(n / 2) : n)) as unknown as Triple;
        halvings = halvings.map((n, axis) => n + halve[axis]!) as unknown as Triple;
        scales.push({ shape, halvings, means: !wavelets });
      }
      return scales;
    });
  }

  /** The voxels of a region of an item, of the file's own dtype. Half floats come as Float32Array, booleans as bytes. */
  async voxels(item: number, box: Box = wholeBox(this.shape), signal?: AbortSignal): Promise<Voxels> {
    this.checkRequest(item, box, this.shape);
    if (this.frame.dtype === 'i8' || this.frame.dtype === 'u8' || this.frame.model === EXACT) {
      const { exact } = await this.layersOf(item);
      if (exact) return cut(await this.exactVoxels(item, exact), this.shape, box);
    }
    const values = await this.values(item, box, signal);
    const voxels = makeVoxels(this.frame.dtype, values.length);
    if (voxels instanceof BigInt64Array || voxels instanceof BigUint64Array) values.forEach((value, i) => (voxels[i] = BigInt(value)));
    else voxels.set(values);
    return voxels;
  }

  /** All voxels of all items, in the order of the file's own axes. */
  async array(signal?: AbortSignal): Promise<Voxels> {
    const { axes, shape, dtype, items } = this.frame;
    const strides = shape.map((_, i) => shape.slice(i + 1).reduce((product, side) => product * side, 1));
    const outer = [...axes].flatMap((axis, i) => (axis === 't' || axis === 'c' ? [i] : []));
    if (!outer.length) return this.voxels(0, undefined, signal);
    const inner = [...axes].flatMap((axis, i) => (axis === 't' || axis === 'c' ? [] : [i]));
    const all = makeVoxels(dtype, shape.reduce((product, side) => product * side, 1));
    for (let item = 0; item < items.length; item++) {
      const voxels = await this.voxels(item, undefined, signal);
      let rest = item, first = 0;
      for (const axis of [...outer].reverse()) {
        first += (rest % shape[axis]!) * strides[axis]!;
        rest = Math.floor(rest / shape[axis]!);
      }
      const place = inner.map(() => 0);
      for (let i = 0; i < voxels.length; i++) {
        all[place.reduce((sum, index, k) => sum + index * strides[inner[k]!]!, first)] = voxels[i]!;
        for (let k = inner.length - 1; k >= 0 && ++place[k]! === shape[inner[k]!]; k--) place[k] = 0;
      }
    }
    return all;
  }

  /** The region of a coarser volume, or of the volume itself at scale 0, for display. */
  async samples(item: number, scale: number, box: Box, signal?: AbortSignal): Promise<Float32Array> {
    const scales = await this.scales(item);
    const { shape, halvings } = scales[scale] ?? badScale(scale, scales.length);
    this.checkRequest(item, box, shape);
    if (scale === 0) return toSamples(await this.voxels(item, box, signal));
    const { minimum, maximum, offset, scale: gain } = this.frame.items[item]!;
    const size = volumeOf(sidesOf(box));
    if (minimum === maximum && this.frame.model !== EXACT) return new Float32Array(size).fill(minimum);
    const { wavelets, mask } = await this.layersOf(item);
    if (!wavelets) return this.means(item, halvings, box, signal);
    const samples = await wavelets.region(scale, box, signal);
    for (let i = 0; i < size; i++) samples[i] = Math.min(maximum, Math.max(minimum, offset + gain * samples[i]!));
    if (mask) await coverCoarse(samples, mask, halvings, this.shape, box, signal);
    return samples;
  }

  private checkRequest(item: number, box: Box, shape: Triple): void {
    if (!this.decodable)
      throw new UnsupportedError(`this file holds a network (${MODELS[this.frame.model]}); only napari-tinc in Python decodes these`);
    if (!(item in this.frame.items)) throw new RequestError(`expected an item below ${this.frame.items.length}, got ${item}`);
    for (let axis = 0; axis < 3; axis++)
      if (!(0 <= box[2 * axis]! && box[2 * axis]! < box[2 * axis + 1]! && box[2 * axis + 1]! <= shape[axis]!))
        throw new RequestError(`expected a region of ${shape.join(' × ')}, got ${box.join(', ')}`);
  }

  /** Voxels as numbers, rounded to the dtype. */
  private async values(item: number, box: Box, signal: AbortSignal | undefined): Promise<Float64Array> {
    const { dtype, items } = this.frame;
    const { minimum, maximum, offset, scale } = items[item]!;
    const size = volumeOf(sidesOf(box));
    if (minimum === maximum) return new Float64Array(size).fill(minimum);
    const { wavelets, directions, restoration, postfilter: learnt, mask, predicted, corrections } = await this.layersOf(item);
    if (predicted) return rounded(fromNumbers(predicted.bins, await predicted.numbers.region(box, signal), dtype, items[item]!), dtype);
    const near = learnt ? grown(box, POSTFILTER_REACH, this.shape) : box;
    const wide = restoration ? grown(near, RESTORATION_REACH, this.shape) : near;
    const layer = wavelets ?? directions!;
    const [raw, states, moves] = await Promise.all([
      layer instanceof WaveletLayer ? layer.region(0, wide, signal) : layer.region(wide, signal),
      mask?.states(0, box, signal),
      corrections?.numbers.region(box, signal),
    ]);
    const restored = restoration ? restore(restoration, raw, wide, near, this.shape) : raw;
    const sums = learnt ? postfilter(learnt, restored, near, box, this.shape) : restored;
    const values = new Float64Array(size);
    for (let i = 0; i < size; i++) values[i] = Math.min(maximum, Math.max(minimum, offset + scale * sums[i]!));
    if (states) for (let i = 0; i < size; i++) if (states[i] === OUTSIDE) values[i] = mask!.background;
    rounded(values, dtype);
    if (corrections && moves) {
      for (let i = 0; i < size; i++)
        if (moves[i]) values[i] = Math.min(maximum, Math.max(minimum, values[i]! + moves[i]! * corrections.width));
      rounded(values, dtype);
    }
    return values;
  }

  /** An item is inflated as a whole. */
  private exactVoxels(item: number, part: Part): Promise<Voxels> {
    const { dtype } = this.frame;
    const make = async (): Promise<Voxels> =>
      fromBytes(await this.pool.run({ kind: 'exact', stream: await part.readAll(), dtype, voxels: volumeOf(this.shape) }), dtype);
    return this.kept.cache.get(`${this.kept.name}${item} exact`, make, (voxels) => voxels.byteLength);
  }

  /** Means of the voxels that the samples of a coarser volume stand for. */
  private async means(item: number, halvings: Triple, box: Box, signal: AbortSignal | undefined): Promise<Float32Array> {
    const fine = [0, 1, 2].flatMap((axis) => [
      box[2 * axis]! << halvings[axis]!,
      Math.min(this.shape[axis]!, box[2 * axis + 1]! << halvings[axis]!),
    ]) as unknown as Box;
    if (volumeOf(sidesOf(fine)) > MOST_AVERAGED)
      throw new RequestError('so large a part of a file without coarse scales would have to be decoded whole; ask for less of it');
    const voxels = await this.voxels(item, fine, signal);
    const [n0, n1, n2] = sidesOf(fine);
    const [, m1, m2] = sidesOf(box);
    const sums = new Float64Array(volumeOf(sidesOf(box)));
    const counts = new Float64Array(sums.length);
    for (let z = 0, i = 0; z < n0; z++)
      for (let y = 0; y < n1; y++) {
        const row = ((z >> halvings[0]) * m1 + (y >> halvings[1])) * m2;
        for (let x = 0; x < n2; x++, i++) {
          sums[row + (x >> halvings[2])]! += Number(voxels[i]);
          counts[row + (x >> halvings[2])]!++;
        }
      }
    return Float32Array.from(sums, (sum, i) => sum / counts[i]!);
  }

  private part(item: number, kind: number, code: ConstructorParameters<typeof Part>[2]): Part | undefined {
    const segment = this.frame.segments.find((each) => each.kind === kind && each.item === item);
    return segment && new Part(this.source, segment, code);
  }

  private layersOf(item: number): Promise<Layers> {
    return remember(this.layers, item, () => this.openLayers(item));
  }

  private async openLayers(item: number): Promise<Layers> {
    const { dtype, items } = this.frame;
    const { shape } = this;
    const means = (name: string): Means => ({ pool: this.pool, cache: this.kept.cache, name: `${this.kept.name}${item} ${name}` });
    const wavelets = this.part(item, Kind.wavelets, 'wavelets');
    const directions = this.part(item, Kind.directions, 'directions');
    const restoration = this.part(item, Kind.restoration, 'restoration');
    const learnt = this.part(item, Kind.postfilter, 'postfilter');
    const mask = this.part(item, Kind.mask, 'mask');
    const predicted = this.part(item, Kind.predicted, 'predicted');
    const corrections = this.part(item, Kind.corrections, 'corrections');
    return {
      wavelets: wavelets && (await WaveletLayer.open(wavelets, shape, means('wavelets'))),
      directions: directions && (await DirectionalLayer.open(directions, shape, means('directions'))),
      restoration: restoration && parseRestoration(await restoration.readAll()),
      postfilter: learnt && parsePostFilter(await learnt.readAll()),
      mask: mask && (await Mask.open(mask, shape, dtype, items[item]!, means('mask'))),
      exact: this.part(item, Kind.exact, 'exact'),
      predicted: predicted && (await openPredicted(predicted, shape, dtype, means('predicted'))),
      corrections: corrections && (await openCorrections(corrections, shape, dtype, means('corrections'))),
    };
  }
}

const MOST_NUMBER = 2 ** 33 - 1;
const MOST_CORRECTION = 2 ** 30;

async function openPredicted(part: Part, shape: Triple, dtype: Dtype, means: Means): Promise<NonNullable<Layers['predicted']>> {
  const { bins, head } = await part.parseHead((cursor) => {
    const parsed = parseBins(cursor, dtype);
    const numbers = parseNumbersHead(cursor, shape, MOST_NUMBER, part.length);
    checkLargest(cursor, parsed, numbers.largest);
    return { bins: parsed, head: numbers };
  });
  return { bins, numbers: new Numbers(part, head, false, means) };
}

async function openCorrections(part: Part, shape: Triple, dtype: Dtype, means: Means): Promise<NonNullable<Layers['corrections']>> {
  const { width, head } = await part.parseHead((cursor) => {
    const parsed = dtype[0] === 'f' ? cursor.f64() : cursor.varint(2 ** 32, 'a width', 1);
    if (!(parsed > 0 && Number.isFinite(parsed))) cursor.fail(`expected a finite positive width, got ${parsed}`);
    return { width: parsed, head: parseNumbersHead(cursor, shape, MOST_CORRECTION, part.length) };
  });
  return { width, numbers: new Numbers(part, head, true, means) };
}

function remember<T>(known: Map<number, Promise<T>>, key: number, make: () => Promise<T>): Promise<T> {
  let value = known.get(key);
  if (!value) {
    value = make();
    known.set(key, value);
    value.catch(() => known.delete(key));
  }
  return value;
}

function badScale(scale: number, count: number): never {
  throw new RequestError(`expected a scale below ${count}, got ${scale}`);
}

/** Which axes to halve, scale by scale, where no octaves say it: those that are longer than half the longest. */
function halvingsOf(shape: Triple): number[] {
  const masks: number[] = [];
  for (let now = [...shape]; Math.max(...now) > COARSEST; ) {
    const longest = Math.max(...now);
    const mask = now.reduce((sum, n, axis) => sum + (2 * n > longest ? 1 << axis : 0), 0);
    masks.push(mask);
    now = now.map((n, axis) => ((mask >> axis) & 1 ? Math.ceil(n / 2) : n));
  }
  return masks;
}

/** Show the background outside of a mask, and half of it in the cells that its border runs through. */
async function coverCoarse(samples: Float32Array, mask: Mask, halvings: Triple, shape: Triple, box: Box, signal: AbortSignal | undefined): Promise<void> {
  const least = Math.min(...[0, 1, 2].flatMap((axis) => (shape[axis]! > 1 ? [halvings[axis]!] : [])));
  const octave = Math.min(least, mask.octaves);
  const cells = [0, 1, 2].flatMap((axis) => {
    const shift = shape[axis]! > 1 ? halvings[axis]! - octave : 0;
    return [box[2 * axis]! << shift, ((box[2 * axis + 1]! - 1) << shift) + 1];
  }) as unknown as Box;
  const states = await mask.states(octave, cells, signal);
  const [, c1, c2] = sidesOf(cells);
  const [n0, n1, n2] = sidesOf(box);
  const shifts = [0, 1, 2].map((axis) => (shape[axis]! > 1 ? halvings[axis]! - octave : 0)) as unknown as Triple;
  for (let z = 0, i = 0; z < n0; z++)
    for (let y = 0; y < n1; y++)
      for (let x = 0; x < n2; x++, i++) {
        const state = states[((z << shifts[0]) * c1 + (y << shifts[1])) * c2 + (x << shifts[2])]!;
        if (state !== INSIDE) samples[i] = state === OUTSIDE ? mask.background : (samples[i]! + mask.background) / 2;
      }
}

function toSamples(voxels: Voxels): Float32Array {
  if (voxels instanceof BigInt64Array || voxels instanceof BigUint64Array) return Float32Array.from(voxels, Number);
  return voxels instanceof Float32Array ? voxels : new Float32Array(voxels);
}

/** Round to the nearest number of the dtype, to the even one of two, in place. */
function rounded(values: Float64Array, dtype: Dtype): Float64Array {
  if (dtype === 'f8') return values;
  if (dtype === 'f4') for (let i = 0; i < values.length; i++) values[i] = Math.fround(values[i]!);
  else if (dtype === 'f2') for (let i = 0; i < values.length; i++) values[i] = toHalf(values[i]!);
  else for (let i = 0; i < values.length; i++) values[i] = toEven(values[i]!);
  return values;
}

function toEven(value: number): number {
  const nearest = Math.round(value);
  return nearest - value === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
}

function toHalf(value: number): number {
  const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(value) || 1)));
  const unit = 2 ** (exponent - 10);
  return toEven(value / unit) * unit;
}

export function makeVoxels(dtype: Dtype, size: number): Voxels {
  switch (dtype) {
    case 'u1': case 'b1': return new Uint8Array(size);
    case 'i1': return new Int8Array(size);
    case 'u2': return new Uint16Array(size);
    case 'i2': return new Int16Array(size);
    case 'u4': return new Uint32Array(size);
    case 'i4': return new Int32Array(size);
    case 'i8': return new BigInt64Array(size);
    case 'u8': return new BigUint64Array(size);
    case 'f8': return new Float64Array(size);
    default: return new Float32Array(size);
  }
}

function fromBytes(bytes: Uint8Array, dtype: Dtype): Voxels {
  const voxels = makeVoxels(dtype, bytes.length / Number(dtype[1]));
  if (dtype === 'f2') {
    for (let i = 0; i < voxels.length; i++) voxels[i] = halfToNumber(bytes[2 * i]! | (bytes[2 * i + 1]! << 8));
    return voxels;
  }
  // Machines that run JavaScript are little-endian, as the file is.
  new Uint8Array(voxels.buffer).set(bytes);
  return voxels;
}

function cut(voxels: Voxels, shape: Triple, box: Box): Voxels {
  const [n0, n1, n2] = sidesOf(box);
  if (n0 === shape[0] && n1 === shape[1] && n2 === shape[2]) return voxels.slice();
  const part = new (voxels.constructor as new (size: number) => Voxels)(n0 * n1 * n2);
  for (let z = 0; z < n0; z++)
    for (let y = 0; y < n1; y++) {
      const row = ((z + box[0]) * shape[1] + y + box[2]) * shape[2] + box[4];
      part.set(voxels.subarray(row, row + n2) as never, (z * n1 + y) * n2);
    }
  return part;
}

