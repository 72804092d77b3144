import type { Dtype } from './frame.js';
import { FormatError } from './errors.js';
import { inflate } from './inflate.js';

export interface ExactTask {
  readonly kind: 'exact';
  readonly stream: Uint8Array;
  readonly dtype: Dtype;
  readonly voxels: number;
}

/** The voxels of an item as they are, little-endian, in row-major order. */
export function runExactTask({ stream, dtype, voxels }: ExactTask): Uint8Array {
  const width = Number(dtype[1]);
  const planes = inflate(stream, voxels * width);
  if (planes.length !== voxels * width) throw new FormatError('exact', `expected ${voxels * width} bytes of voxels, got ${planes.length}`);
  const bytes = new Uint8Array(voxels * width);
  const value = new Uint8Array(width);
  for (let i = 0; i < voxels; i++) {
    let carry = 0;
    for (let byte = 0; byte < width; byte++) {
      carry += value[byte]! + planes[byte * voxels + i]!;
      value[byte] = carry;
      bytes[i * width + byte] = carry;
      carry >>= 8;
    }
  }
  if (dtype === 'b1' && bytes.some((byte) => byte > 1)) throw new FormatError('exact', 'expected booleans of 0 or 1, got others');
  return bytes;
}
