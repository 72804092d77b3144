/** First and behind-the-last index along three axes: [z0, z1, y0, y1, x0, x1]. */
export type Box = readonly [number, number, number, number, number, number];

export type Triple = readonly [number, number, number];

export function sidesOf(box: Box): Triple {
  return [box[1] - box[0], box[3] - box[2], box[5] - box[4]];
}

export function volumeOf(sides: Triple): number {
  return sides[0] * sides[1] * sides[2];
}

export function wholeBox(sides: Triple): Box {
  return [0, sides[0], 0, sides[1], 0, sides[2]];
}

/** The same region with a margin, as far as the volume goes. */
export function grown(box: Box, margin: number, sides: Triple): Box {
  return [
    Math.max(0, box[0] - margin), Math.min(sides[0], box[1] + margin), Math.max(0, box[2] - margin),
    Math.min(sides[1], box[3] + margin), Math.max(0, box[4] - margin), Math.min(sides[2], box[5] + margin),
  ];
}

export function meet(a: Box, b: Box): Box | undefined {
  const box: Box = [
    Math.max(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.min(a[3], b[3]), Math.max(a[4], b[4]), Math.min(a[5], b[5]),
  ];
  return box[0] < box[1] && box[2] < box[3] && box[4] < box[5] ? box : undefined;
}

interface Indexable {
  [index: number]: number;
}

/** Copy what two boxes have in common from an array that fills one to an array that fills the other. */
export function copyBox(from: Indexable, fromBox: Box, to: Indexable, toBox: Box): void {
  const common = meet(fromBox, toBox);
  if (!common) return;
  const [, h1, w1] = sidesOf(fromBox);
  const [, h2, w2] = sidesOf(toBox);
  for (let z = common[0]; z < common[1]; z++)
    for (let y = common[2]; y < common[3]; y++) {
      let a = ((z - fromBox[0]) * h1 + y - fromBox[2]) * w1 + common[4] - fromBox[4];
      let b = ((z - toBox[0]) * h2 + y - toBox[2]) * w2 + common[4] - toBox[4];
      for (let x = common[4]; x < common[5]; x++) to[b++] = from[a++]!;
    }
}

/** A volume cut along every axis at multiples of sides, in row-major order. */
export class Grid {
  readonly counts: Triple;
  readonly length: number;

  constructor(
    readonly shape: Triple,
    readonly sides: Triple,
  ) {
    this.counts = [0, 1, 2].map((axis) => Math.ceil(shape[axis]! / sides[axis]!)) as unknown as Triple;
    this.length = volumeOf(this.counts);
  }

  box(index: number): Box {
    const x = index % this.counts[2];
    const line = Math.floor(index / this.counts[2]);
    const place = [Math.floor(line / this.counts[1]), line % this.counts[1], x];
    const ends = place.flatMap((at, axis) => {
      const start = at * this.sides[axis]!;
      return [start, Math.min(start + this.sides[axis]!, this.shape[axis]!)];
    });
    return ends as unknown as Box;
  }

  /** The number of the part that a place lies in. */
  at(z: number, y: number, x: number): number {
    const [s0, s1, s2] = this.sides;
    return (Math.floor(z / s0) * this.counts[1] + Math.floor(y / s1)) * this.counts[2] + Math.floor(x / s2);
  }

  /** The numbers of the parts that a box meets. */
  meeting(box: Box): number[] {
    const [s0, s1, s2] = this.sides;
    const found: number[] = [];
    for (let z = Math.floor(box[0] / s0); z * s0 < box[1]; z++)
      for (let y = Math.floor(box[2] / s1); y * s1 < box[3]; y++)
        for (let x = Math.floor(box[4] / s2); x * s2 < box[5]; x++) found.push((z * this.counts[1] + y) * this.counts[2] + x);
    return found;
  }
}
