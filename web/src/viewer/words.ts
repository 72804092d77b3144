// What the page says in words and numbers. Plain functions of the file's own data.
import type { Described, Quality } from '../index.js';

const SHORT_UNITS: Readonly<Record<string, string>> = {
  nanometer: 'nm', micrometer: 'µm', micron: 'µm', um: 'µm', millimeter: 'mm', centimeter: 'cm', meter: 'm', angstrom: 'Å', second: 's', millisecond: 'ms', minute: 'min',
};
/** A unit of more letters is not one. */
const MOST_UNIT = 12;
const KINDS: Readonly<Record<string, string>> = {
  u: 'unsigned integers', i: 'integers', f: 'floats', b: 'booleans',
};

export function unitText(unit: string): string {
  return SHORT_UNITS[unit.toLowerCase()] ?? (unit.length > MOST_UNIT ? `${unit.slice(0, MOST_UNIT)}…` : unit);
}

/** A number for people: three digits that count. */
export function numberText(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return '0';
  if (Math.abs(value) >= 1000 && Math.abs(value) < 1e7) return Math.round(value).toLocaleString('en');
  return String(Number(value.toPrecision(3)));
}

export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${unit ? Number(bytes.toPrecision(3)) : bytes} ${units[unit]}`;
}

export function decibelsText(psnr: number): string {
  return Number.isFinite(psnr) ? `${psnr.toFixed(1)} dB` : 'exact';
}

/** What the quality of a file is known of. */
export function octantText(frame: Described): string {
  return frame.chunk ? 'chunk' : 'octant';
}

export function shapeText(frame: Described): string {
  return frame.shape.map((side, i) => `${frame.axes[i]} ${side}`).join(' × ');
}

export function dtypeText(dtype: string): string {
  return dtype === 'b1' ? 'booleans' : `${8 * Number(dtype[1])}-bit ${KINDS[dtype[0]!]}`;
}

export function rawBytes(frame: Described): number {
  return frame.shape.reduce((product, side) => product * side, Number(frame.dtype[1]));
}

/** What a scale bar of about a length says: 1, 2 or 5 times a power of ten. */
export function niceLength(length: number): number {
  const power = 10 ** Math.floor(Math.log10(length));
  const digit = length / power;
  return (digit >= 5 ? 5 : digit >= 2 ? 2 : 1) * power;
}

/** What the octants of an item say all together. */
export interface Summary {
  readonly psnr: number;
  readonly worst: number;
  readonly worstPsnr: number;
  readonly largestError: number;
}

export function summarise(quality: Quality, shape: readonly number[]): Summary {
  let error = 0;
  let worst = 0;
  let largestError = 0;
  const voxels = shape.reduce((product, side) => product * side, 1);
  for (let octant = 0; octant < quality.octants; octant++) {
    const { start, stop } = quality.extent(octant);
    const share = start.reduce((product, first, axis) => product * (stop[axis]! - first), 1) / voxels;
    error += share * 10 ** (-quality.psnr(octant) / 10);
    if (quality.psnr(octant) < quality.psnr(worst)) worst = octant;
    largestError = Math.max(largestError, quality.largestError(octant));
  }
  return { psnr: -10 * Math.log10(error), worst, worstPsnr: quality.psnr(worst), largestError };
}

/** Octants from the worst on, by PSNR; ties by their largest error. */
export function worstOctants(quality: Quality, count: number): number[] {
  const order = Array.from({ length: quality.octants }, (_, octant) => octant).filter((octant) => quality.psnr(octant) < Infinity);
  order.sort((a, b) => quality.psnr(a) - quality.psnr(b) || quality.largestError(b) - quality.largestError(a));
  return order.slice(0, count);
}

/** Where to trust a file, in sentences; nothing is said that the file does not. */
export function trustText(frame: Described, quality: Quality | undefined, item: number): string[] {
  const { minimum, maximum } = frame.items[item]!;
  const range = maximum - minimum;
  const promised = frame.metadata.provenance['max_error'];
  if (frame.model === 4) return ['Nothing was lost: every voxel is what it was.'];
  if (range === 0) return [`All voxels have one value, ${numberText(minimum)}.`];
  if (!quality) return ['The file does not say how good it is.'];
  const { psnr, worst, worstPsnr, largestError } = summarise(quality, frame.spatialShape);
  const sentences: string[] = [];
  if (promised === 0 || worstPsnr === Infinity) return ['Nothing was lost: every voxel is what it was.'];
  if (typeof promised === 'number') sentences.push(`It is guaranteed that no voxel is off by more than ${numberText(promised)}.`);
  const percent = numberText((100 * largestError) / range);
  const found = `${decibelsText(psnr)} over all voxels, and no voxel off by more than ${numberText(largestError)} (${percent}\u00a0% of the range).`;
  // Of a file that was cut from another one, the original was not at hand: what it says are bounds.
  const cut = frame.metadata.provenance['cut_from'] !== undefined;
  sentences.push(cut ? `Cut from a larger file. Against the original it has at least ${found}` : `Measured against the original when the file was made: ${found}`);
  if (quality.octants > 1 && worstPsnr < psnr - 1) {
    const { start, stop } = quality.extent(worst);
    const place = start.map((first, axis) => `${frame.spatialAxes[axis]} ${first}–${stop[axis]! - 1}`).join(', ');
    sentences.push(`The weakest ${octantText(frame)} has ${decibelsText(worstPsnr)}: ${place}. Look there before you measure something faint.`);
  } else if (quality.octants > 1) sentences.push(`All ${octantText(frame)}s are about as good as one another.`);
  sentences.push('Edges and bright structures are kept best; noise, and detail as faint as the noise, is smoothed away.');
  return sentences;
}

export const NETWORK_TEXT = (family: string): string =>
  `It holds a neural network (${family}). Pages cannot evaluate networks yet; napari-tinc in Python can. What it says of itself is shown beside.`;
