import { type Box, sidesOf, type Triple, volumeOf } from './box.js';
import { FormatError } from './errors.js';

/** Voxels beyond a region that its filter looks at. */
export const RESTORATION_REACH = 2;

/** The filter of an item: thresholds of activity, and twelve weights per bin. */
export interface Restoration {
  readonly thresholds: Float64Array;
  readonly weights: Float64Array;
}

export function parseRestoration(bytes: Uint8Array): Restoration {
  const bins = (bytes.length + 1) / 13;
  if (!Number.isInteger(bins) || bins < 1 || bins > 16)
    throw new FormatError('restoration', `expected 13 n − 1 bytes for 1 to 16 bins, got ${bytes.length}`);
  const edges = bytes.subarray(0, bins - 1);
  edges.forEach((edge, i) => {
    if (edge <= (i ? edges[i - 1]! : 0)) throw new FormatError('restoration', 'expected edges from 1 to 255, ascending');
  });
  return {
    thresholds: Float64Array.from(edges, (edge) => 2 ** ((edge - 128) / 4)),
    weights: Float64Array.from(bytes.subarray(bins - 1), (byte) => ((byte << 24) >> 24) / 64),
  };
}

/** The region of a filtered volume, from the samples of the region with its margin. */
export function restore(filter: Restoration, samples: Float32Array, from: Box, region: Box, shape: Triple): Float32Array {
  const [n0, n1, n2] = sidesOf(region);
  const [, height, width] = sidesOf(from);
  const strides: Triple = [height * width, width, 1];
  // Where the neighbours of a coordinate lie: four shifts per axis and coordinate, 0 beyond the volume's last voxel.
  const shifts = [0, 1, 2].map((axis) => {
    const start = region[2 * axis]!;
    const count = region[2 * axis + 1]! - start;
    const table = new Int32Array(4 * count);
    for (let i = 0; i < count; i++)
      [-1, 1, -2, 2].forEach((step, j) => {
        const at = start + i;
        table[4 * i + j] = (Math.min(shape[axis]! - 1, Math.max(0, at + step)) - at) * strides[axis]!;
      });
    return table;
  }) as [Int32Array, Int32Array, Int32Array];
  const { thresholds, weights } = filter;
  const restored = new Float32Array(volumeOf([n0, n1, n2]));
  const features = new Float64Array(6);
  let out = 0;
  for (let z = 0; z < n0; z++)
    for (let y = 0; y < n1; y++) {
      let p = (z + region[0] - from[0]) * strides[0] + (y + region[2] - from[2]) * width + region[4] - from[4];
      for (let x = 0; x < n2; x++, p++, out++) {
        const value = samples[p]!;
        let activity = 0;
        let sum = 0;
        for (let axis = 0; axis < 3; axis++) {
          const table = shifts[axis]!;
          const at = 4 * (axis === 0 ? z : axis === 1 ? y : x);
          for (let r = 0; r < 2; r++) {
            const before = Math.fround(samples[p + table[at + 2 * r]!]! - value);
            const behind = Math.fround(samples[p + table[at + 2 * r + 1]!]! - value);
            activity += Math.abs(before) + Math.abs(behind);
            const feature = 0.5 * (before + behind);
            features[2 * axis + r] = feature;
            sum += feature;
          }
        }
        let bin = 0;
        while (bin < thresholds.length && activity >= thresholds[bin]!) bin++;
        const first = 12 * bin + (sum > 0 ? 6 : 0);
        let change = 0;
        for (let i = 0; i < 6; i++) change += features[i]! * weights[first + i]!;
        restored[out] = value + change;
      }
    }
  return restored;
}
