import { type Box, sidesOf, type Triple, volumeOf } from './box.js';
import { FormatError } from './errors.js';

/** Voxels beyond a region that its post-filter looks at. */
export const POSTFILTER_REACH = 2;
const HEAD = 12;
const CHANNEL = 48;
const TAPS = 27;

/** The post-filter of an item: two layers of 3³ convolutions. */
export interface PostFilter {
  readonly scale: number;
  readonly biases: Float32Array;
  /** Per channel 27 weights of values, then 27 of compressed values. */
  readonly first: Float32Array;
  readonly last: Float32Array;
  readonly lastBias: number;
}

export function parsePostFilter(bytes: Uint8Array): PostFilter {
  const channels = (bytes.length - HEAD) / CHANNEL;
  if (!Number.isInteger(channels) || channels < 1 || channels > 32)
    throw new FormatError('postfilter', `expected 12 + 48 n bytes for 1 to 32 channels, got ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const number = (at: number): number => {
    const value = view.getFloat32(at, true);
    if (!Number.isFinite(value)) throw new FormatError('postfilter', 'expected finite numbers');
    return value;
  };
  const [scale, lastStep, lastBias] = [number(0), number(4), number(8)];
  if (scale <= 0) throw new FormatError('postfilter', 'expected a scale above 0');
  const biases = new Float32Array(channels);
  const first = new Float32Array(2 * TAPS * channels);
  const last = new Float32Array(TAPS * channels);
  for (let channel = 0; channel < channels; channel++) {
    const at = HEAD + CHANNEL * channel;
    const step = number(at);
    biases[channel] = number(at + 4);
    const weight = (n: number): number => {
      const stored = (bytes[at + 8 + (n >> 1)]! >> (n % 2 ? 4 : 0)) & 15;
      if (!stored) throw new FormatError('postfilter', 'expected weights from -7 to 7');
      return stored - 8;
    };
    let sum = 0;
    for (let n = 0; n < 26; n++) {
      sum += weight(n);
      first[54 * channel + n + (n < 13 ? 0 : 1)] = step * weight(n);
    }
    first[54 * channel + 13] = -step * sum;
    for (let n = 0; n < TAPS; n++) {
      first[54 * channel + 27 + n] = step * weight(26 + n);
      last[TAPS * channel + n] = lastStep * weight(53 + n);
    }
  }
  return { scale, biases, first, last, lastBias };
}

/** The region of a filtered volume, from the samples of the region with its margin. */
export function postfilter(filter: PostFilter, samples: Float32Array, from: Box, region: Box, shape: Triple): Float32Array {
  const { scale, biases, first, last, lastBias } = filter;
  const inner = sidesOf(region);
  const source = sidesOf(from);
  const sides: Triple = [inner[0] + 2 * POSTFILTER_REACH, inner[1] + 2 * POSTFILTER_REACH, inner[2] + 2 * POSTFILTER_REACH];
  // Where a coordinate of the region with its whole margin lies; beyond an end, the last voxel.
  const places = [0, 1, 2].map((axis) =>
    Int32Array.from({ length: sides[axis]! }, (_, i) =>
      Math.min(shape[axis]! - 1, Math.max(0, region[2 * axis]! + i - POSTFILTER_REACH)) - from[2 * axis]!,
    ),
  ) as [Int32Array, Int32Array, Int32Array];
  const values = new Float32Array(volumeOf(sides));
  const compressed = new Float32Array(values.length);
  let at = 0;
  for (const z of places[0])
    for (const y of places[1])
      for (const x of places[2]) {
        const value = samples[(z * source[1] + y) * source[2] + x]! / scale;
        values[at] = value;
        compressed[at++] = value / (1 + Math.abs(value)) ** 0.75;
      }
  const middle: Triple = [inner[0] + 2, inner[1] + 2, inner[2] + 2];
  const hidden = new Float32Array(volumeOf(middle));
  const moved = new Float64Array(volumeOf(inner)).fill(lastBias);
  for (let channel = 0; channel < biases.length; channel++) {
    hidden.fill(biases[channel]!);
    convolve(values, sides, first.subarray(54 * channel, 54 * channel + 27), hidden, middle);
    convolve(compressed, sides, first.subarray(54 * channel + 27, 54 * channel + 54), hidden, middle);
    for (let i = 0; i < hidden.length; i++) if (!(hidden[i]! > 0)) hidden[i] = 0;
    convolve(hidden, middle, last.subarray(TAPS * channel, TAPS * (channel + 1)), moved, inner);
  }
  const filtered = new Float32Array(moved.length);
  at = 0;
  for (let z = 0; z < inner[0]; z++)
    for (let y = 0; y < inner[1]; y++) {
      let p = ((z + POSTFILTER_REACH) * sides[1] + y + POSTFILTER_REACH) * sides[2] + POSTFILTER_REACH;
      for (let x = 0; x < inner[2]; x++, p++, at++) filtered[at] = scale * (values[p]! + moved[at]!);
    }
  return filtered;
}

/** Add a 3³ convolution to what is there, a row and a weight at a time. */
function convolve(
  values: Float32Array, sides: Triple, weights: Float32Array, out: Float32Array | Float64Array, [n0, n1, n2]: Triple,
): void {
  for (let z = 0; z < n0; z++)
    for (let y = 0; y < n1; y++) {
      const row = (z * n1 + y) * n2;
      for (let tap = 0; tap < TAPS; tap++) {
        const weight = weights[tap]!;
        if (!weight) continue;
        const line = ((z + Math.floor(tap / 9)) * sides[1] + y + (Math.floor(tap / 3) % 3)) * sides[2] + (tap % 3);
        for (let x = 0; x < n2; x++) out[row + x]! += weight * values[line + x]!;
      }
    }
}
