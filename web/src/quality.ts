import type { Frame } from './frame.js';

/** How far the decoded voxels of one octant are from the original's, as the file itself says. */
export interface Octant {
  /** First voxel and the one behind the last, per spatial axis. */
  readonly start: readonly number[];
  readonly stop: readonly number[];
  /** Decibels over the item's range; Infinity for an exact octant. */
  readonly psnr: number;
  /** No voxel is farther off than this, in intensity units. */
  readonly largestError: number;
  /** Agreement of what is at or above the threshold, 0..1. */
  readonly dice: number;
}

export interface Quality {
  readonly threshold: number;
  readonly octants: readonly Octant[];
}

/** The octants of an item, in node order, from the bytes of its quality segment. */
export function parseQuality(bytes: Uint8Array, frame: Frame, item: number): Quality {
  const { minimum, maximum } = frame.items[item]!;
  const range = maximum - minimum;
  const { leaves } = frame;
  const threshold = minimum + ((bytes[0]! | (bytes[1]! << 8)) / 65535) * range;
  const decibels = (code: number): number => (code === 255 ? Infinity : code / 2);
  const octants = Array.from({ length: leaves }, (_, leaf): Octant => {
    const { start, stop } = leafBox(frame, leaf);
    return {
      start,
      stop,
      psnr: decibels(bytes[2 + leaf]!),
      largestError: range * 10 ** (-decibels(bytes[2 + leaves + leaf]!) / 20),
      dice: bytes[2 + 2 * leaves + leaf]! / 255,
    };
  });
  return { threshold, octants };
}

function leafBox(frame: Frame, leaf: number): { start: number[]; stop: number[] } {
  const place = frame.spatialShape.map(() => 0);
  const halved = frame.spatialShape.map(() => 0);
  // From the deepest level up: the last split axis of a level is the lowest bit of a child's number.
  let rest = leaf;
  for (const mask of [...frame.splits].reverse())
    for (let axis = frame.spatialShape.length - 1; axis >= 0; axis--)
      if ((mask >> axis) & 1) {
        place[axis]! += (rest % 2) * 2 ** halved[axis]!;
        halved[axis]!++;
        rest = Math.floor(rest / 2);
      }
  const cut = (axis: number, index: number): number => Math.floor((index * frame.spatialShape[axis]!) / 2 ** halved[axis]!);
  return { start: place.map((index, axis) => cut(axis, index)), stop: place.map((index, axis) => cut(axis, index + 1)) };
}
