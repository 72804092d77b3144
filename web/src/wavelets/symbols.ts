import { freshStatistics, MixingDecoder, type Statistics } from '../mixing.js';

// The coder of the symbols of blocks (docs/format.md, Symbols). Numbers that the page defines as sums over neighbours
// are not gathered at every coefficient: most symbols are 0, so each that is not adds itself to the sums of those it is
// a neighbour of.

const KINDS = 6;
const KIND_CONTEXTS = 544;
const FLAG = 5;
const MOST_BITS = 23;
export const CELL = 4;

export function freshCoefficients(): Statistics {
  return freshStatistics(KINDS * KIND_CONTEXTS, KINDS * 3, 19660);
}

/** The symbols of a block that are not 0, and where: ((band · side₀ + z) · side₁ + y) · side₂ + x. */
export interface Symbols {
  readonly positions: Int32Array;
  readonly values: Int32Array;
}

/** What a block is, and how it lies in its parent. */
export interface BlockShape {
  readonly bands: readonly number[];
  readonly sides: readonly number[];
}

export interface Parent {
  readonly shape: BlockShape;
  readonly symbols: Symbols;
  /** The parent coefficient of the block's first one, counted from the corner of the parent block. */
  readonly first: readonly number[];
  /** The axes that the coarser octave splits. */
  readonly mask: number;
}

function quantiser(edges: readonly number[], size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, value) => edges.filter((edge) => edge <= value).length);
}

// The largest sums are of flags: 48 + 2 · 32 · 255 + 128; of coefficients 24 · 255 + 10 · 255 + 18 · 255.
const MOST_SUM = 16640;
const A = /* @__PURE__ */ quantiser([1, 2, 4, 6, 9, 13, 20, 32, 64], MOST_SUM);
const B = /* @__PURE__ */ quantiser([1, 3, 6, 12, 24, 60], MOST_SUM);
const C = /* @__PURE__ */ quantiser([1, 4, 12, 40], MOST_SUM);
const E = /* @__PURE__ */ quantiser([1, 2, 3, 5, 7, 10, 14, 19, 26, 36, 50, 70, 100, 160, 300], MOST_SUM);
const SET = /* @__PURE__ */ Uint8Array.from({ length: 16 }, (_, t) => (t < 4 ? 0 : t < 9 ? 1 : 2));

/** Numbers that grow as they come; a block has at most 2¹⁸ of them. */
class Numbers {
  private held = new Int32Array(1024);
  private size = 0;

  push(value: number): void {
    if (this.size === this.held.length) {
      const larger = new Int32Array(2 * this.held.length);
      larger.set(this.held);
      this.held = larger;
    }
    this.held[this.size++] = value;
  }

  finish(): Int32Array {
    return this.held.slice(0, this.size);
  }
}

/** Decode one block with a coder that may have decoded others before (the trunk's octaves share one). */
export function decodeSymbols(coder: MixingDecoder, { bands, sides }: BlockShape, parent: Parent | undefined): Symbols {
  const [n0, n1, n2] = sides as [number, number, number];
  // One coefficient of margin before every axis and two behind it: what symbols add beyond the block is nobody's.
  const sy = n2 + 3;
  const sz = (n1 + 3) * sy;
  const padded = (n0 + 3) * sz;
  const origin = sz + sy + 1;
  const magnitude = new Uint8Array(padded);
  const same = new Uint16Array(padded);
  const beside = new Uint16Array(padded);
  const m0 = Math.ceil(n0 / CELL), m1 = Math.ceil(n1 / CELL), m2 = Math.ceil(n2 / CELL);
  const coded = new Uint8Array(m0 * m1 * m2);
  const cellBeside = new Uint16Array(m0 * m1 * m2);
  const positions = new Numbers();
  const values = new Numbers();

  for (let band = 0; band < bands.length; band++) {
    const orientation = bands[band]!;
    if (band > 0) {
      magnitude.fill(0);
      same.fill(0);
      coded.fill(0);
    }
    const above = parent && sumsOfParent(parent, orientation, n0, n1, n2, m0, m1, m2);
    const { sums, cells, f0, f1, f2, p1, p2 } = above ?? NONE;
    const base0 = 10 * orientation;
    const base3 = 220 + 35 * orientation;
    let cell = 0;
    for (let z0 = 0; z0 < n0; z0 += CELL)
      for (let y0 = 0; y0 < n1; y0 += CELL)
        for (let x0 = 0; x0 < n2; x0 += CELL, cell++) {
          const z1 = Math.min(z0 + CELL, n0), y1 = Math.min(y0 + CELL, n1), x1 = Math.min(x0 + CELL, n2);
          {
            const corner = origin + z0 * sz + y0 * sy + x0;
            const w = x0 && coded[cell - 1] ? layer(magnitude, corner - 1, z1 - z0, sz, y1 - y0, sy) : 0;
            const n = y0 && coded[cell - m2] ? layer(magnitude, corner - sy, z1 - z0, sz, x1 - x0, 1) : 0;
            const t = z0 && coded[cell - m1 * m2] ? layer(magnitude, corner - sz, y1 - y0, sy, x1 - x0, 1) : 0;
            const sum = w + n + t;
            const up = above ? 2 * cells[cell]! : 0;
            const near = band ? ((2 * cellBeside[cell]! + band - 1) / band) | 0 : 0;
            const a = A[sum]!, b = B[up]!, c = B[near]!, total = E[sum + up + near]!;
            const k = FLAG * KIND_CONTEXTS;
            const some = coder.decide(
              k + base0 + a, k + 80 + 7 * a + b, k + 150 + 7 * a + c, k + base3 + 5 * b + C[near]!, k + 500 + total,
              k + 516 + (w > 2 ? 2 : w) + 3 * (n > 2 ? 2 : n) + 9 * (t > 2 ? 2 : t), k + 543, 3 * FLAG + SET[total]!,
            );
            if (!some) continue;
          }
          coded[cell] = 1;
          for (let z = z0; z < z1; z++)
            for (let y = y0; y < y1; y++) {
              const row = above ? ((z >> f0) * p1 + (y >> f1)) * p2 : 0;
              for (let x = x0, p = origin + z * sz + y * sy + x0; x < x1; x++, p++) {
                const w = magnitude[p - 1]!, n = magnitude[p - sy]!, t = magnitude[p - sz]!;
                const sum = same[p]!;
                const up = above ? sums[row + (x >> f2)]! : 0;
                const near = band ? ((2 * beside[p]! + band - 1) / band) | 0 : 0;
                const a = A[sum]!, b = B[up]!, total = E[sum + up + near]!;
                const c0 = base0 + a, c1 = 80 + 7 * a + b, c2 = 150 + 7 * a + B[near]!, c3 = base3 + 5 * b + C[near]!;
                const c4 = 500 + total, c5 = 516 + (w > 2 ? 2 : w) + 3 * (n > 2 ? 2 : n) + 9 * (t > 2 ? 2 : t);
                const set = SET[total]!;
                if (!coder.decide(c0, c1, c2, c3, c4, c5, 543, set)) continue;
                let value = 1;
                let k = KIND_CONTEXTS;
                if (coder.decide(k + c0, k + c1, k + c2, k + c3, k + c4, k + c5, k + 543, 3 + set)) {
                  let bits = 0;
                  for (let kind = 2; bits < MOST_BITS; kind = kind < 4 ? kind + 1 : 4, bits++) {
                    k = kind * KIND_CONTEXTS;
                    if (!coder.decide(k + c0, k + c1, k + c2, k + c3, k + c4, k + c5, k + 543, 3 * kind + set)) break;
                  }
                  value = 1 + ((1 << bits) | coder.bits(bits));
                }
                positions.push(((band * n0 + z) * n1 + y) * n2 + x);
                values.push(coder.bit() ? -value : value);
                const s = value > 255 ? 255 : value;
                magnitude[p] = s;
                same[p + 1]! += 3 * s;
                same[p + 2]! += s;
                same[p + sy - 1]! += 2 * s;
                same[p + sy]! += 3 * s;
                same[p + sy + 1]! += 2 * s;
                same[p + 2 * sy]! += s;
                same[p + sz - sy]! += 2 * s;
                same[p + sz - 1]! += 2 * s;
                same[p + sz]! += 3 * s;
                same[p + sz + 1]! += 2 * s;
                same[p + sz + sy]! += 2 * s;
                same[p + 2 * sz]! += s;
              }
            }
        }
    if (band + 1 < bands.length) addBeside(beside, cellBeside, magnitude, coded, sides, origin, sy, sz);
  }
  return { positions: positions.finish(), values: values.finish() };
}

/** How many symbols of a layer, one coefficient thick, are not 0. */
function layer(magnitude: Uint8Array, first: number, outer: number, outerStep: number, inner: number, innerStep: number): number {
  let count = 0;
  for (let i = 0, row = first; i < outer; i++, row += outerStep)
    for (let j = 0, p = row; j < inner; j++, p += innerStep) if (magnitude[p]) count++;
  return count;
}

/** A band's share of what the bands after it see beside them. */
function addBeside(
  beside: Uint16Array, cellBeside: Uint16Array, magnitude: Uint8Array, coded: Uint8Array, sides: readonly number[],
  origin: number, sy: number, sz: number,
): void {
  const [n0, n1, n2] = sides as [number, number, number];
  let cell = 0;
  for (let z0 = 0; z0 < n0; z0 += CELL)
    for (let y0 = 0; y0 < n1; y0 += CELL)
      for (let x0 = 0; x0 < n2; x0 += CELL, cell++) {
        if (!coded[cell]) continue;
        for (let z = z0; z < z0 + CELL && z < n0; z++)
          for (let y = y0; y < y0 + CELL && y < n1; y++)
            for (let x = x0; x < x0 + CELL && x < n2; x++) {
              const p = origin + z * sz + y * sy + x;
              const s = magnitude[p]!;
              if (!s) continue;
              cellBeside[cell]!++;
              beside[p]! += 3 * s;
              beside[p - 1]! += s;
              beside[p + 1]! += s;
              beside[p - sy]! += s;
              beside[p + sy]! += s;
              beside[p - sz]! += s;
              beside[p + sz]! += s;
            }
      }
}

const NONE = { sums: new Uint16Array(0), cells: new Uint16Array(0), f0: 0, f1: 0, f2: 0, p1: 0, p2: 0 };

/** Per parent coefficient of the block 4 Q(q) + Σ Q(q ± uᵢ), and per cell the sum of Q; undefined if no band has this orientation. */
function sumsOfParent(
  parent: Parent, orientation: number, n0: number, n1: number, n2: number, m0: number, m1: number, m2: number,
): typeof NONE | undefined {
  const band = parent.shape.bands.indexOf(orientation);
  if (band < 0) return undefined;
  const f0 = parent.mask & 1, f1 = (parent.mask >> 1) & 1, f2 = parent.mask >> 2;
  const p0 = ((n0 - 1) >> f0) + 1, p1 = ((n1 - 1) >> f1) + 1, p2 = ((n2 - 1) >> f2) + 1;
  const sums = new Uint16Array(p0 * p1 * p2);
  const cells = new Uint16Array(m0 * m1 * m2);
  const [s0, s1, s2] = parent.shape.sides as [number, number, number];
  const [q0, q1, q2] = parent.first as [number, number, number];
  const { positions, values } = parent.symbols;
  const first = band * s0 * s1 * s2;
  for (let i = firstFrom(positions, first), end = first + s0 * s1 * s2; i < positions.length && positions[i]! < end; i++) {
    const at = positions[i]! - first;
    const line = (at / s2) | 0;
    const x = at - line * s2 - q2;
    const plane = (line / s1) | 0;
    const y = line - plane * s1 - q1;
    const z = plane - q0;
    if (x < -1 || x > p2 || y < -1 || y > p1 || z < -1 || z > p0) continue;
    const value = Math.min(255, Math.abs(values[i]!));
    const inX = x >= 0 && x < p2, inY = y >= 0 && y < p1, inZ = z >= 0 && z < p0;
    const q = (z * p1 + y) * p2 + x;
    if (inX && inY && inZ) {
      sums[q]! += 4 * value;
      cells[(((z << f0) >> 2) * m1 + ((y << f1) >> 2)) * m2 + ((x << f2) >> 2)]! += value;
    }
    if (inY && inZ) {
      if (x > 0) sums[q - 1]! += value;
      if (x + 1 < p2) sums[q + 1]! += value;
    }
    if (inX && inZ) {
      if (y > 0) sums[q - p2]! += value;
      if (y + 1 < p1) sums[q + p2]! += value;
    }
    if (inX && inY) {
      if (z > 0) sums[q - p1 * p2]! += value;
      if (z + 1 < p0) sums[q + p1 * p2]! += value;
    }
  }
  return { sums, cells, f0, f1, f2, p1, p2 };
}

/** The index of the first position of a band, or of a layer of cells in it: those of one follow those of the ones before. */
export function firstFrom(positions: Int32Array, first: number): number {
  let low = 0, high = positions.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (positions[middle]! < first) low = middle + 1;
    else high = middle;
  }
  return low;
}
