import type { Triple } from '../box.js';

/** Where a block is in its tile. */
export interface Placed {
  readonly corner: Triple;
  readonly sides: Triple;
}

const LONG = 8;
/** What a direction misses beside a block counts so much in the first voxel, less in each of the next, none beyond. */
const CARRIED = [0.3, 0.3 * 0.35, 0.3 * 0.35 ** 2, 0.3 * 0.35 ** 3];

/** How blocks are predicted and corrected; files keep the rules of their time. */
export interface Rules {
  /** Slopes above 0, in eighths of a voxel a step. */
  readonly slopes: readonly number[];
  /** Whether what a direction misses beside a block is made up for within it. */
  readonly carries: boolean;
  hasSines(mode: number, axis: number): boolean;
}

const HALVES = [4, 8, 12, 16] as const;
const EIGHTHS = [1, 2, 3, 4, 6, 8, 16] as const;

/** By their code in a file. */
export const RULES: Readonly<Record<number, Rules>> = {
  0: { slopes: HALVES, carries: false, hasSines: () => false },
  2: { slopes: HALVES, carries: false, hasSines: (mode, axis) => mode === 1 || axisOf(mode) === axis },
  1: { slopes: EIGHTHS, carries: false, hasSines: (mode) => mode > 0 },
  3: { slopes: EIGHTHS, carries: true, hasSines: (mode) => mode > 0 },
};

/** Axis of a direction. */
export function axisOf(mode: number): number {
  return Math.floor((mode - 2) / 225);
}

/** Number of a direction's slope, 7 for none. */
export function slopeOf(mode: number, j: number): number {
  const numbers = (mode - 2) % 225;
  return j === 0 ? Math.floor(numbers / 15) : numbers % 15;
}

/** Put the prediction of a block in its place, from the voxels around it as they are now. */
export function predict(voxels: Float32Array, shape: Triple, block: Placed, mode: number, rules: Rules): void {
  if (mode === 0) fillWithMean(voxels, shape, block);
  else if (mode === 1) blend(voxels, shape, block);
  else continueAlong(voxels, shape, block, mode, rules);
}

function stridesOf(shape: Triple): Triple {
  return [shape[1] * shape[2], shape[2], 1];
}

function firstOf(strides: Triple, corner: Triple): number {
  return corner[0] * strides[0] + corner[1] * strides[1] + corner[2];
}

function fillWithMean(voxels: Float32Array, shape: Triple, { corner, sides }: Placed): void {
  const strides = stridesOf(shape);
  const first = firstOf(strides, corner);
  let sum = 0, count = 0;
  for (let a = 0; a < 3; a++) {
    if (corner[a] === 0) continue;
    const b = a === 0 ? 1 : 0, c = a === 2 ? 1 : 2;
    for (let y = 0; y < sides[b]!; y++)
      for (let z = 0; z < sides[c]!; z++) sum += voxels[first - strides[a]! + y * strides[b]! + z * strides[c]!]!;
    count += sides[b]! * sides[c]!;
  }
  const mean = count ? sum / count : 0;
  for (let z = 0; z < sides[0]; z++)
    for (let y = 0; y < sides[1]; y++) {
      const row = first + z * strides[0] + y * strides[1];
      voxels.fill(mean, row, row + sides[2]);
    }
}

function blend(voxels: Float32Array, shape: Triple, { corner, sides }: Placed): void {
  const strides = stridesOf(shape);
  const first = firstOf(strides, corner);
  for (let z = 0; z < sides[0]; z++)
    for (let y = 0; y < sides[1]; y++)
      for (let x = 0; x < sides[2]; x++) {
        const at = first + z * strides[0] + y * strides[1] + x;
        let sum = 0, weight = 0;
        if (corner[0]) {
          sum += voxels[at - (z + 1) * strides[0]]! / (z + 1);
          weight += 1 / (z + 1);
        }
        if (corner[1]) {
          sum += voxels[at - (y + 1) * strides[1]]! / (y + 1);
          weight += 1 / (y + 1);
        }
        if (corner[2]) {
          sum += voxels[at - (x + 1)]! / (x + 1);
          weight += 1 / (x + 1);
        }
        voxels[at] = weight ? sum / weight : 0;
      }
}

function continueAlong(voxels: Float32Array, shape: Triple, { corner, sides }: Placed, mode: number, { slopes, carries }: Rules): void {
  const a = axisOf(mode), b = a === 0 ? 1 : 0, c = a === 2 ? 1 : 2;
  const [s, t] = [0, 1].map((j) => Math.sign(slopeOf(mode, j) - 7) * (slopes[Math.abs(slopeOf(mode, j) - 7) - 1] ?? 0)) as [number, number];
  const strides = stridesOf(shape);
  const depth = sides[a]!, height = sides[b]!, width = sides[c]!;
  const smooth = Math.max(...sides) >= LONG;
  // The face, with as much around it as directions and the smoothing reach.
  const margin = 2 * depth + 2;
  const rows = height + 2 * margin, columns = width + 2 * margin;
  const lastB = b < a ? corner[b]! + height - 1 : shape[b]! - 1;
  const lastC = c < a ? corner[c]! + width - 1 : shape[c]! - 1;
  const base = Math.max(0, corner[a]! - 1) * strides[a]!;
  const raw = new Float32Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    const row = base + Math.min(lastB, Math.max(0, corner[b]! + y - margin)) * strides[b]!;
    for (let z = 0; z < columns; z++) raw[y * columns + z] = voxels[row + Math.min(lastC, Math.max(0, corner[c]! + z - margin)) * strides[c]!]!;
  }
  let face = raw;
  if (smooth) {
    face = new Float32Array(rows * columns);
    for (let y = 1; y < rows - 1; y++)
      for (let z = 1; z < columns - 1; z++) {
        const i = y * columns + z;
        face[i] = 0.5 * raw[i]! + 0.125 * (raw[i - columns]! + raw[i + columns]! + raw[i - 1]! + raw[i + 1]!);
      }
  }
  const first = firstOf(strides, corner);
  // The face moved, from one row and one column before the block on.
  const across = width + 1;
  const moved = new Float32Array((height + 1) * across);
  for (let d = 1; d <= depth; d++) {
    const below = ((-d * s) & 7) / 8, right = ((-d * t) & 7) / 8;
    const from = (margin - 1 + ((-d * s) >> 3)) * columns + margin - 1 + ((-d * t) >> 3);
    const down = below ? columns : 0, next = right ? 1 : 0;
    for (let y = 0; y <= height; y++)
      for (let z = 0, i = from + y * columns; z <= width; z++, i++) {
        const upper = (1 - right) * face[i]! + right * face[i + next]!;
        const lower = (1 - right) * face[i + down]! + right * face[i + down + next]!;
        moved[y * across + z] = (1 - below) * upper + below * lower;
      }
    const plane = first + (d - 1) * strides[a]!;
    if (carries && corner[b]) carry(voxels, plane - strides[b]!, strides[c]!, width, moved, 1, 1, height, across);
    if (carries && corner[c]) carry(voxels, plane - strides[c]!, strides[b]!, height, moved, across, across, width, 1);
    for (let y = 0; y < height; y++)
      for (let z = 0; z < width; z++) voxels[plane + y * strides[b]! + z * strides[c]!] = moved[(y + 1) * across + z + 1]!;
  }
}

/** Make up for what a direction misses along a face, the `count` voxels from `seen` on, in the voxels next to it. */
function carry(
  voxels: Float32Array, seen: number, stride: number, count: number, moved: Float32Array, first: number, along: number, reach: number, inwards: number,
): void {
  for (let q = 0; q < count; q++) {
    const at = first + q * along;
    const missed = voxels[seen + q * stride]! - moved[at]!;
    for (let r = 0; r < Math.min(reach, CARRIED.length); r++) moved[at + (r + 1) * inwards]! += CARRIED[r]! * missed;
  }
}

/** Rows of cosines: [frequency · n + place], times the gain of the frequency. */
const COSINES = /* @__PURE__ */ [1, 2, 4, 8, 16, 32].map((n) =>
  Float64Array.from({ length: n * n }, (_, i) => {
    const frequency = Math.floor(i / n);
    return Math.sqrt((frequency ? 2 : 1) / n) * Math.cos((Math.PI * ((i % n) + 0.5) * frequency) / n);
  }),
);

/** Rows of sines, which are 0 one place before the first. */
const SINES = /* @__PURE__ */ [1, 2, 4, 8, 16, 32].map((n) =>
  Float64Array.from({ length: n * n }, (_, i) => {
    const turns = (2 * Math.floor(i / n) + 1) / (2 * n + 1);
    return (2 / Math.sqrt(2 * n + 1)) * Math.sin(Math.PI * ((i % n) + 1) * turns);
  }),
);

/** The inverse transform of a block, axis by axis; its arrays serve one block after another. */
export class Correction {
  private readonly coefficients = new Float64Array(32 ** 3);
  private readonly other = new Float64Array(32 ** 3);

  /** Room for the coefficients of a block, all 0. */
  clear([n0, n1, n2]: Triple): Float64Array {
    return this.coefficients.fill(0, 0, n0 * n1 * n2);
  }

  /** Add what the coefficients in a box of the block stand for: of cosines, or of sines along some axes. */
  add(voxels: Float32Array, shape: Triple, { corner, sides }: Placed, box: Triple, sines: readonly boolean[]): void {
    const [n0, n1, n2] = sides;
    const strides = stridesOf(shape);
    // Along axis 2 for the rows that have coefficients, then along 1, then 0.
    transform(this.coefficients, this.other, sines[2]!, box[0], n1 * n2, box[1], n2, n2, box[2], 1);
    transform(this.other, this.coefficients, sines[1]!, box[0], n1 * n2, n2, 1, n1, box[1], n2);
    transform(this.coefficients, this.other, sines[0]!, n1, n2, n2, 1, n0, box[0], n1 * n2);
    const first = firstOf(strides, corner);
    for (let z = 0; z < n0; z++)
      for (let y = 0; y < n1; y++) {
        const row = first + z * strides[0] + y * strides[1];
        const from = (z * n1 + y) * n2;
        for (let x = 0; x < n2; x++) voxels[row + x]! += this.other[from + x]!;
      }
  }
}

/** Lines of `n` places `step` apart, of which the first `used` frequencies are not 0, for outer × inner lines. */
function transform(
  from: Float64Array, to: Float64Array, sines: boolean, outer: number, outerStep: number, inner: number, innerStep: number, n: number, used: number, step: number,
): void {
  const waves = (sines ? SINES : COSINES)[31 - Math.clz32(n)]!;
  for (let o = 0; o < outer; o++)
    for (let i = 0; i < inner; i++) {
      const first = o * outerStep + i * innerStep;
      for (let place = 0; place < n; place++) {
        let sum = 0;
        for (let frequency = 0; frequency < used; frequency++) sum += from[first + frequency * step]! * waves[frequency * n + place]!;
        to[first + place * step] = sum;
      }
    }
}
