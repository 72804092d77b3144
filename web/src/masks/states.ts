import { freshStatistics, MixingDecoder, type Statistics } from '../mixing.js';
import { volumeOf, type Triple } from '../box.js';

export const OUTSIDE = 0;
export const MIXED = 1;
export const INSIDE = 2;

const KIND_CONTEXTS = 1996;

/** A block of parents that are divided into children. */
export interface StatesShape {
  readonly parents: Triple;
  /** The children of the block that are inside the volume. */
  readonly children: Triple;
  /** 1 for the axes that the octave joins cells along. */
  readonly joined: Triple;
  readonly finest: boolean;
}

export interface MaskTask {
  readonly kind: 'mask';
  readonly stream: Uint8Array;
  /** From coarse to fine; only the trunk has several, each of which divides what the one before it made. */
  readonly blocks: readonly StatesShape[];
  /** States of the first one's parents, with a margin of one cell on all sides that is MIXED beyond the volume. */
  readonly around: Uint8Array;
  readonly statistics: Statistics | undefined;
}

export interface MaskResult {
  readonly states: readonly Uint8Array[];
  readonly statistics: Statistics;
}

export function runMaskTask({ stream, blocks, around, statistics }: MaskTask): MaskResult {
  const coder = new MixingDecoder(stream, statistics ?? freshStatistics(2 * KIND_CONTEXTS, 16, 19660));
  let known = around;
  const states = blocks.map((shape) => {
    const made = divide(coder, shape, known);
    known = withMargin(made, shape.children);
    return made;
  });
  return { states, statistics: coder.learnt() };
}

/** States with one cell of margin on all sides, MIXED. */
export function withMargin(states: Uint8Array, [n0, n1, n2]: Triple): Uint8Array {
  const padded = new Uint8Array((n0 + 2) * (n1 + 2) * (n2 + 2)).fill(MIXED);
  for (let z = 0; z < n0; z++)
    for (let y = 0; y < n1; y++) {
      const row = (z * n1 + y) * n2;
      padded.set(states.subarray(row, row + n2), ((z + 1) * (n1 + 2) + y + 1) * (n2 + 2) + 1);
    }
  return padded;
}

function divide(coder: MixingDecoder, shape: StatesShape, around: Uint8Array): Uint8Array {
  const { parents, children, joined, finest } = shape;
  const [p0, p1, p2] = parents;
  const [f0, f1, f2] = joined;
  const [c0, c1, c2] = children;
  // What is known of the children, and of two places around them: their parents' states, until they are decoded.
  const sx = 1, sy = (p2 << f2) + 4, sz = ((p1 << f1) + 4) * sy;
  const known = new Uint8Array(((p0 << f0) + 4) * sz);
  const line = p2 + 2, layer = (p1 + 2) * line;
  const up = (place: number, joint: number): number => (joint ? place >> 1 : place - 1 < 0 ? 0 : place - 1);
  for (let z = 0; z < (p0 << f0) + 4; z++)
    for (let y = 0; y < (p1 << f1) + 4; y++) {
      const row = Math.min(up(z, f0), p0 + 1) * layer + Math.min(up(y, f1), p1 + 1) * line;
      for (let x = 0; x < sy; x++) known[z * sz + y * sy + x] = around[row + Math.min(up(x, f2), p2 + 1)]!;
    }
  const origin = 2 * sz + 2 * sy + 2;
  for (let z = 0; z < p0; z++)
    for (let y = 0; y < p1; y++)
      for (let x = 0; x < p2; x++) {
        if (around[(z + 1) * layer + (y + 1) * line + x + 1] !== MIXED) continue;
        let b = 1;
        for (let cz = z << f0; cz < (z + 1) << f0 && cz < c0; cz++)
          for (let cy = y << f1; cy < (y + 1) << f1 && cy < c1; cy++)
            for (let cx = x << f2; cx < (x + 1) << f2 && cx < c2; cx++) {
              const at = origin + cz * sz + cy * sy + cx * sx;
              const state = decodeState(coder, known, at, sy, sz, b, finest);
              known[at] = state;
              b = 2 * b + (state === INSIDE ? 1 : 0);
            }
      }
  const states = new Uint8Array(volumeOf(children));
  for (let z = 0; z < c0; z++)
    for (let y = 0; y < c1; y++) {
      const row = origin + z * sz + y * sy;
      states.set(known.subarray(row, row + c2), (z * c1 + y) * c2);
    }
  return states;
}

function decodeState(coder: MixingDecoder, known: Uint8Array, p: number, sy: number, sz: number, b: number, finest: boolean): number {
  const w = known[p - 1]!, n = known[p - sy]!, u = known[p - sz]!;
  const g3 = known[p - sy - 1]!, g4 = known[p - sy + 1]!, g5 = known[p - sz - 1]!;
  const g6 = known[p - sz + 1]!, g7 = known[p - sz - sy]!, g8 = known[p - sz + sy]!;
  const a = w + n + u + known[p + 1]! + known[p + sy]! + known[p + sz]!;
  const e =
    g3 + g4 + g5 + g6 + g7 + g8 +
    known[p + sy - 1]! + known[p + sy + 1]! + known[p + sz - 1]! + known[p + sz + 1]! + known[p + sz - sy]! + known[p + sz + sy]!;
  const c =
    known[p - sz - sy - 1]! + known[p - sz - sy + 1]! + known[p - sz + sy - 1]! + known[p - sz + sy + 1]! +
    known[p + sz - sy - 1]! + known[p + sz - sy + 1]! + known[p + sz + sy - 1]! + known[p + sz + sy + 1]!;
  // States are 0, 1, 2: the high bit says inside; neither bit says outside.
  const inside =
    (w >> 1) | (n & 2) | ((u >> 1) << 2) | ((g3 >> 1) << 3) | ((g4 >> 1) << 4) | ((g5 >> 1) << 5) | ((g6 >> 1) << 6) | ((g7 >> 1) << 7) | ((g8 >> 1) << 8);
  const outside =
    zero(w) | (zero(n) << 1) | (zero(u) << 2) | (zero(g3) << 3) | (zero(g4) << 4) | (zero(g5) << 5) | (zero(g6) << 6) | (zero(g7) << 7) | (zero(g8) << 8);
  const c2 = 1024 + 7 * (w + 3 * n + 9 * u) + a - w - n - u;
  const c4 = 1469 + 4 * a + 2 * e + c;
  const c5 = 1582 + 7 * (known[p - 2]! + 3 * known[p - 2 * sy]! + 9 * known[p - 2 * sz]!) + w + n + u;
  const c6 = 1771 + 9 * e + (c >> 1);
  const set = (w >> 1) + (n >> 1) + (u >> 1) + (w === 1 || n === 1 || u === 1 ? 4 : 0);
  if (!finest && coder.decide(inside, 512 + outside, c2, 1213 + b, c4, c5, c6, set)) return MIXED;
  const k = KIND_CONTEXTS;
  return coder.decide(k + inside, k + 512 + outside, k + c2, k + 1213 + b, k + c4, k + c5, k + c6, 8 + set) ? INSIDE : OUTSIDE;
}

function zero(state: number): number {
  return state === 0 ? 1 : 0;
}
