import { crc32c } from './crc32c.js';
import { Cursor } from './cursor.js';
import { FormatError } from './errors.js';
import { type Metadata, parseMetadata } from './metadata.js';

export type Dtype = 'u1' | 'i1' | 'u2' | 'i2' | 'u4' | 'i4' | 'f2' | 'f4' | 'f8' | 'b1' | 'i8' | 'u8';

const DTYPES: readonly Dtype[] = ['u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'f2', 'f4', 'f8', 'b1', 'i8', 'u8'];

export const MODELS: Readonly<Record<number, string>> = {
  0: 'constant', 1: 'tinc', 2: 'wavelet', 3: 'neurcomp', 4: 'exact', 5: 'grid', 6: 'tucker', 7: 'siren', 8: 'sci', 9: 'nerv', 10: 'coinpp',
  32: 'predictive',
};
export const CONSTANT = 0;
export const TINC = 1;
export const WAVELET = 2;
export const EXACT = 4;
export const PREDICTIVE = 32;

export const Kind = {
  quality: 0, parameters: 1, wavelets: 2, restoration: 3, mask: 4, exact: 5, directions: 6, predicted: 7, corrections: 8, postfilter: 9,
} as const;
const KINDS = Object.keys(Kind).length;

const MAGIC = [0x89, 0x54, 0x4e, 0x43, 0x0d, 0x0a, 0x1a, 0x0a];
const VERSION = 1;
const MOST_HEADER = 2 ** 24;
const MOST_SIDE = 2 ** 31 - 1;
const MOST_VOXELS = 2 ** 48;
const MOST_ITEMS = 2 ** 16;
const MOST_LEVELS = 16;
const MOST_LEAVES = 2 ** 24;
const MOST_CONSTANT_LEAVES = 2 ** 16;
const MOST_SEGMENTS = 2 ** 20;
const MOST_RANGE = 2n ** 61n;
const MOST_EXACT = 2 ** 30;
const MOST_LENGTH = Number.MAX_SAFE_INTEGER;

/** The intensities of one position along `t` and `c`, and the normalisation it is stored under. */
export interface Item {
  readonly minimum: number;
  readonly maximum: number;
  readonly offset: number;
  readonly scale: number;
}

export interface Segment {
  readonly kind: number;
  readonly item: number;
  readonly level: number;
  readonly offset: number;
  readonly length: number;
  readonly crc: number;
}

/** What a file, or an array of chunks, says of itself. */
export interface Described {
  readonly dtype: Dtype;
  readonly axes: string;
  readonly shape: readonly number[];
  readonly spatialAxes: string;
  readonly spatialShape: readonly number[];
  readonly items: readonly Pick<Item, 'minimum' | 'maximum'>[];
  /** Per level of the octree, a mask of the spatial axes that it halves. */
  readonly splits: readonly number[];
  /** Of an array: how large its chunks are, which are its octants. */
  readonly chunk?: readonly number[];
  readonly leaves: number;
  readonly model: number;
  readonly metadata: Metadata;
  readonly size: number;
}

export interface Frame extends Described {
  readonly items: readonly Item[];
  readonly segments: readonly Segment[];
}

/** How many bytes from the start hold the header and its checksum; undefined if more of the file is needed to say. */
export function headSize(start: Uint8Array): number | undefined {
  for (let i = 0; i < Math.min(MAGIC.length, start.length); i++)
    if (start[i] !== MAGIC[i]) throw new FormatError('magic', 'this is not a .tinc file, or a transfer has changed its bytes');
  if (start.length < 9) return undefined;
  if (start[8] !== VERSION) throw new FormatError('version', `expected version ${VERSION}, got ${start[8]}`);
  let last = 9;
  while (last < start.length && start[last]! >= 128) last++;
  if (last >= start.length && start.length < 18) return undefined;
  const cursor = new Cursor(start, 'header');
  cursor.take(9);
  const length = cursor.varint(MOST_HEADER, 'a header length');
  return cursor.position + length + 4;
}

/** Parse the head of a file of `size` bytes (undefined if nobody knows); checks everything before it allocates. */
export function parseFrame(head: Uint8Array, size?: number): Frame {
  const end = headSize(head);
  if (end === undefined || head.length < end) throw new FormatError('truncated', 'the file ends inside its header');
  const stored = new DataView(head.buffer, head.byteOffset + end - 4, 4).getUint32(0, true);
  if (crc32c(head.subarray(0, end - 4)) !== stored) throw new FormatError('checksum', 'the header is damaged');
  const cursor = new Cursor(head.subarray(0, end - 4), 'header');
  cursor.take(9);
  cursor.varint(MOST_HEADER, 'a header length');
  return parseHeader(cursor, end, size);
}

function parseHeader(cursor: Cursor, end: number, size: number | undefined): Frame {
  const dtype = DTYPES[cursor.byte() - 1];
  if (dtype === undefined) throw new FormatError('dtype', 'expected a dtype from 1 to 12');
  const axes = parseAxes(cursor);
  const shape = parseShape(cursor, axes.length);
  const spatial = [...axes].flatMap((axis, i) => (axis === 't' || axis === 'c' ? [] : [i]));
  const spatialShape = spatial.map((i) => shape[i]!);
  const count = shape.reduce((product, side, i) => (spatial.includes(i) ? product : product * side), 1);
  if (count > MOST_ITEMS) throw new FormatError('shape', `expected at most ${MOST_ITEMS} channels and time points, got ${count}`);
  const least = dtype === 'f8' ? 19 : dtype === 'f4' ? 11 : dtype === 'f2' ? 7 : 5;
  if (count * least > cursor.left) throw new FormatError('truncated', 'the header is too short for its items');
  const items = Array.from({ length: count }, () => parseItem(cursor, dtype));
  const { splits, leaves } = parseSplits(cursor, spatialShape, count);
  const model = cursor.byte();
  if (!(model in MODELS)) throw new FormatError('model', `expected a known model, got ${model}; a later version may read it`);
  checkModel(model, dtype, items, splits, leaves, spatialShape);
  const plan = cursor.take(cursor.varint(MOST_LENGTH, 'the length of the plan'));
  const planless = model === CONSTANT || model === WAVELET || model === EXACT || model === PREDICTIVE;
  if (planless && plan.length) throw new FormatError('plan', `expected no plan with model ${MODELS[model]}`);
  cursor.byte(); // the strategy is for the user of the encoder
  const channels = axes.includes('c') ? shape[axes.indexOf('c')]! : 1;
  const metadata = parseMetadata(cursor.take(cursor.varint(MOST_LENGTH, 'the length of the metadata')), axes.length, channels);
  const segments = parseTable(cursor, count, splits.length, end);
  cursor.end();
  checkSegments(segments, model, items, splits.length, leaves);
  const stop = segments.length ? segments.at(-1)!.offset + segments.at(-1)!.length : end;
  if (size !== undefined && size < stop) throw new FormatError('truncated', `expected ${stop} bytes, got ${size}; the file was cut off`);
  if (size !== undefined && size > stop) throw new FormatError('trailing', `expected ${stop} bytes, got ${size}; something was appended`);
  const spatialAxes = spatial.map((i) => axes[i]!).join('');
  return { dtype, axes, shape, spatialAxes, spatialShape, items, splits, leaves, model, metadata, segments, size: stop };
}

function parseAxes(cursor: Cursor): string {
  const count = cursor.byte();
  if (count < 2 || count > 5) throw new FormatError('axes', `expected 2 to 5 axes, got ${count}`);
  const axes = String.fromCharCode(...cursor.take(count));
  const distinct = new Set(axes).size === count;
  if (!/^[tczyx]+$/.test(axes) || !distinct || !axes.includes('y') || !axes.includes('x'))
    throw new FormatError('axes', "expected each of 'tczyx' at most once, with y and x");
  return axes;
}

function parseShape(cursor: Cursor, count: number): number[] {
  let voxels = 1;
  return Array.from({ length: count }, () => {
    const side = Number(cursor.bigVarint());
    if (side < 1 || side > MOST_SIDE) throw new FormatError('shape', `expected a side from 1 to 2³¹ − 1, got ${side}`);
    voxels *= side;
    if (voxels > MOST_VOXELS) throw new FormatError('shape', 'expected at most 2⁴⁸ voxels, got more');
    return side;
  });
}

const WIDTHS: Readonly<Record<string, readonly [bigint, bigint]>> = {
  u1: [0n, 255n], i1: [-128n, 127n], u2: [0n, 65535n], i2: [-32768n, 32767n], u4: [0n, 2n ** 32n - 1n],
  i4: [-(2n ** 31n), 2n ** 31n - 1n], b1: [0n, 1n], i8: [-MOST_RANGE, MOST_RANGE], u8: [0n, MOST_RANGE],
};

/** A value of the dtype as the header and mask segments spell it. */
export function readValue(cursor: Cursor, dtype: Dtype): number {
  if (dtype === 'f2') return halfToNumber(cursor.u16());
  if (dtype === 'f4') return cursor.f32();
  if (dtype === 'f8') return cursor.f64();
  const value = cursor.bigZigzag();
  const [low, high] = WIDTHS[dtype]!;
  if (value < low || value > high) throw new FormatError('range', `expected a value of ${dtype}, got ${value}`);
  return Number(value);
}

export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

function parseItem(cursor: Cursor, dtype: Dtype): Item {
  const minimum = readValue(cursor, dtype);
  const maximum = readValue(cursor, dtype);
  const range = maximum - minimum;
  if (!Number.isFinite(minimum) || !Number.isFinite(maximum) || !Number.isFinite(range) || range < 0)
    throw new FormatError('range', `expected finite values, minimum ≤ maximum, got ${minimum} and ${maximum}`);
  const offset = minimum + (cursor.u16() / 65535) * range;
  return { minimum, maximum, offset, scale: range * 2 ** (-cursor.byte() / 16) };
}

function parseSplits(cursor: Cursor, shape: readonly number[], items: number): { splits: number[]; leaves: number } {
  const levels = cursor.byte();
  if (levels > MOST_LEVELS) throw new FormatError('levels', `expected at most ${MOST_LEVELS} levels, got ${levels}`);
  const halved = shape.map(() => 0);
  const splits = [...cursor.take(levels)];
  for (const mask of splits) {
    if (mask === 0 || mask >> shape.length) throw new FormatError('levels', `expected axes to split, got the mask ${mask}`);
    for (let i = 0; i < shape.length; i++) halved[i]! += (mask >> i) & 1;
  }
  if (halved.some((times, i) => 2 ** times > shape[i]!)) throw new FormatError('levels', 'an axis is split into empty parts');
  const leaves = 2 ** halved.reduce((sum, times) => sum + times, 0);
  if (leaves * items > MOST_LEAVES) throw new FormatError('levels', 'expected at most 2²⁴ octants, got more');
  return { splits, leaves };
}

function checkModel(
  model: number, dtype: Dtype, items: readonly Item[], splits: readonly number[], leaves: number, shape: readonly number[],
): void {
  const wide = dtype === 'b1' || dtype === 'i8' || dtype === 'u8';
  if (wide && model !== CONSTANT && model !== EXACT)
    throw new FormatError('model', `expected a constant or an exact file of dtype ${dtype}, got ${MODELS[model]}`);
  if (model === CONSTANT && leaves * items.length > MOST_CONSTANT_LEAVES)
    throw new FormatError('levels', 'expected at most 2¹⁶ octants in a constant file, got more');
  if (model === CONSTANT && items.some((item) => item.minimum !== item.maximum))
    throw new FormatError('range', 'expected one value in a constant file, got a range');
  if (model === EXACT) {
    if (splits.length) throw new FormatError('levels', 'expected no levels in an exact file');
    if (items.some((item) => item.offset !== item.minimum || item.scale !== item.maximum - item.minimum))
      throw new FormatError('range', 'expected codes of 0 in an exact file, got others');
    const bytes = shape.reduce((product, side) => product * side, Number(dtype[1]));
    if (bytes > MOST_EXACT) throw new FormatError('shape', 'expected at most 2³⁰ bytes in an exact item, got more');
  }
}

function parseTable(cursor: Cursor, items: number, levels: number, end: number): Segment[] {
  const count = cursor.varint(MOST_SEGMENTS, 'a number of segments');
  if (count * 8 > cursor.left) throw new FormatError('table', `the header is too short for ${count} segments`);
  let offset = end;
  let before: Segment | undefined;
  return Array.from({ length: count }, () => {
    const kind = cursor.byte();
    if (kind >= KINDS) throw new FormatError('table', `expected a known kind of segment, got ${kind}`);
    const item = cursor.varint(items - 1, 'the item of a segment');
    const level = cursor.varint(kind === Kind.parameters ? levels : 0, 'the level of a segment');
    const length = cursor.varint(MOST_LENGTH - offset, 'the length of a segment');
    const segment = { kind, item, level, offset, length, crc: cursor.u32() };
    if (before !== undefined && !inOrder(before, segment)) throw new FormatError('table', 'segments are not in their order');
    offset += length;
    before = segment;
    return segment;
  });
}

function inOrder(a: Segment, b: Segment): boolean {
  if (a.kind !== b.kind) return a.kind < b.kind;
  return a.level !== b.level ? a.level < b.level : a.item < b.item;
}

/** Every item has the segments that its model asks for, and no others. */
function checkSegments(segments: readonly Segment[], model: number, items: readonly Item[], levels: number, leaves: number): void {
  const network = model !== CONSTANT && model !== WAVELET && model !== EXACT && model !== PREDICTIVE;
  const allowed: readonly number[] =
    model === CONSTANT ? [Kind.quality]
    : model === EXACT ? [Kind.exact]
    : model === PREDICTIVE ? [Kind.quality, Kind.predicted]
    : model === WAVELET ? [Kind.quality, Kind.wavelets, Kind.restoration, Kind.mask, Kind.directions, Kind.corrections, Kind.postfilter]
    : [Kind.quality, Kind.parameters, Kind.wavelets, Kind.restoration, Kind.mask, Kind.postfilter];
  const counts = new Uint32Array(items.length * KINDS);
  for (const { kind, item, level, length } of segments) {
    if (!allowed.includes(kind)) throw new FormatError('table', `expected no segment of kind ${kind} with model ${MODELS[model]}`);
    if (kind === Kind.parameters && model !== TINC && level) throw new FormatError('table', 'expected parameters at level 0 only');
    if (kind === Kind.quality && length !== 2 + 3 * leaves)
      throw new FormatError('quality', `expected ${2 + 3 * leaves} bytes of quality, got ${length}`);
    counts[item * KINDS + kind]!++;
  }
  const need = (item: number, kind: number, count: number): void => {
    if (counts[item * KINDS + kind] !== count) throw new FormatError('table', `item ${item} lacks a segment of kind ${kind}`);
  };
  const filtered = segments.some(({ kind }) => kind === Kind.restoration || kind === Kind.postfilter);
  if (filtered && segments.some((segment) => segment.kind === Kind.corrections))
    throw new FormatError('table', 'expected no filters in a file with corrections');
  items.forEach((item, i) => {
    if (model === EXACT) return need(i, Kind.exact, 1);
    if (model === CONSTANT) return undefined;
    need(i, Kind.quality, 1);
    if (network) need(i, Kind.parameters, model === TINC ? levels + 1 : 1);
    if (item.minimum === item.maximum) return undefined;
    if (model === PREDICTIVE) need(i, Kind.predicted, 1);
    if (model === WAVELET && counts[i * KINDS + Kind.wavelets]! + counts[i * KINDS + Kind.directions]! !== 1)
      throw new FormatError('table', `expected wavelets or directions for item ${i}`);
    return undefined;
  });
}
