import type { Described } from './frame.js';

/** First voxel and the one behind the last, per spatial axis of the file. */
export interface Extent {
  readonly start: readonly number[];
  readonly stop: readonly number[];
}

/** How far the decoded voxels of an item's octants are from the original's, as the file itself says. */
export class Quality {
  readonly threshold: number;

  /** The bytes are those of the quality segment, three for every octant: nothing else is held. */
  constructor(
    private readonly bytes: Uint8Array,
    private readonly frame: Described,
    item: number,
  ) {
    const { minimum, maximum } = frame.items[item]!;
    this.range = maximum - minimum;
    this.threshold = minimum + ((bytes[0]! | (bytes[1]! << 8)) / 65535) * this.range;
  }

  private readonly range: number;

  get octants(): number {
    return this.frame.leaves;
  }

  /** Decibels over the item's range; Infinity for an exact octant. */
  psnr(octant: number): number {
    return decibels(this.bytes[2 + octant]!);
  }

  /** No voxel of the octant is farther off than this, in intensity units. */
  largestError(octant: number): number {
    return this.range * 10 ** (-decibels(this.bytes[2 + this.octants + octant]!) / 20);
  }

  /** Agreement of what is at or above the threshold, 0 to 1. */
  dice(octant: number): number {
    return this.bytes[2 + 2 * this.octants + octant]! / 255;
  }

  extent(octant: number): Extent {
    const { spatialShape, splits, chunk } = this.frame;
    if (chunk) return chunkExtent(octant, spatialShape, chunk);
    const place = spatialShape.map(() => 0);
    const halved = spatialShape.map(() => 0);
    // From the deepest level up: the last split axis of a level is the lowest bit of a child's number.
    let rest = octant;
    for (let level = splits.length - 1; level >= 0; level--)
      for (let axis = spatialShape.length - 1; axis >= 0; axis--)
        if ((splits[level]! >> axis) & 1) {
          place[axis]! += (rest % 2) * 2 ** halved[axis]!;
          halved[axis]!++;
          rest = Math.floor(rest / 2);
        }
    const cut = (axis: number, index: number): number => Math.floor((index * spatialShape[axis]!) / 2 ** halved[axis]!);
    return { start: place.map((index, axis) => cut(axis, index)), stop: place.map((index, axis) => cut(axis, index + 1)) };
  }
}

/** Chunks are numbered row by row. */
function chunkExtent(number: number, shape: readonly number[], chunk: readonly number[]): Extent {
  const start = shape.map(() => 0);
  for (let axis = shape.length - 1, rest = number; axis >= 0; axis--) {
    const count = Math.ceil(shape[axis]! / chunk[axis]!);
    start[axis] = (rest % count) * chunk[axis]!;
    rest = Math.floor(rest / count);
  }
  return { start, stop: start.map((first, axis) => Math.min(shape[axis]!, first + chunk[axis]!)) };
}

function decibels(code: number): number {
  return code === 255 ? Infinity : code / 2;
}
