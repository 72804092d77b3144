import type { Triple } from '../box.js';
import { freshStatistics, MixingDecoder, type Statistics } from '../mixing.js';
import { axisOf, Correction, type Placed, predict, RULES, type Rules, slopeOf } from './prediction.js';

const KIND_CONTEXTS = 2305;
const SYMBOLS_BASE = 36880;
const SYMBOL_CONTEXTS = 1304;
const SYMBOL_SET = 16;
const MOST_BITS = 13;

export interface DirectionsTask {
  readonly kind: 'directions';
  readonly stream: Uint8Array;
  /** Logarithms of a root block's sides. */
  readonly codes: Triple;
  /** Code of how blocks are predicted and corrected. */
  readonly rules: number;
  /** Voxels of the tile that are inside the volume. */
  readonly extent: Triple;
  readonly step: number;
  readonly offsets: readonly [number, number];
  readonly statistics: Statistics | undefined;
}

export interface DirectionsResult {
  readonly voxels: Float32Array;
  readonly statistics: Statistics;
}

interface Block extends Placed {
  readonly level: number;
  readonly logs: Triple;
  mode: number;
  /** Logarithms of the box that symbols are in; coded is whether there are any. */
  box: [number, number, number];
  coded: boolean;
}

function quantiser(edges: readonly number[]): Uint8Array {
  return Uint8Array.from({ length: edges.at(-1)! + 1 }, (_, value) => edges.filter((edge) => edge <= value).length);
}

const A = /* @__PURE__ */ quantiser([1, 2, 4, 6, 9, 13, 20, 32, 64]);
const B = /* @__PURE__ */ quantiser([1, 3, 6, 12, 24, 60]);
const E = /* @__PURE__ */ quantiser([1, 2, 3, 5, 7, 10, 14, 19, 26, 36, 50, 70, 100, 160, 300]);

function quantised(table: Uint8Array, value: number): number {
  return table[value < table.length ? value : table.length - 1]!;
}

export function runDirectionsTask(task: DirectionsTask): DirectionsResult {
  const coder = new MixingDecoder(task.stream, task.statistics ?? freshStatistics(43400, 31, 19660));
  const tile = new Tile(task, coder);
  if (task.stream.length) tile.decode();
  return { voxels: tile.inside(), statistics: coder.learnt() };
}

class Tile {
  /** Whole root blocks, those parts that reach beyond the volume's end included. */
  private readonly shape: Triple;
  private readonly voxels: Float32Array;
  private readonly magnitudes: Uint16Array;
  /** Which block a place is in, on a grid of the smallest blocks. */
  private readonly owners: Int32Array;
  private readonly smallest: Triple;
  private readonly owned: Triple;
  private readonly blocks: Block[] = [];
  private readonly deepest: number;
  private readonly correction = new Correction();
  private readonly rules: Rules;

  constructor(
    private readonly task: DirectionsTask,
    private readonly coder: MixingDecoder,
  ) {
    const { codes, extent } = task;
    this.rules = RULES[task.rules]!;
    this.shape = extent.map((n, a) => Math.ceil(n / 2 ** codes[a]!) * 2 ** codes[a]!) as unknown as Triple;
    this.deepest = Math.max(...codes) - 2;
    this.smallest = codes.map((code) => Math.max(0, code - this.deepest)) as unknown as Triple;
    this.owned = this.shape.map((n, a) => n >> this.smallest[a]!) as unknown as Triple;
    const size = this.shape[0] * this.shape[1] * this.shape[2];
    this.voxels = new Float32Array(size);
    this.magnitudes = new Uint16Array(size);
    this.owners = new Int32Array(this.owned[0] * this.owned[1] * this.owned[2]).fill(-1);
  }

  decode(): void {
    const { codes } = this.task;
    const [n0, n1, n2] = this.shape;
    const plane = n1 * n2;
    for (let z = 0; z < n0; z += 1 << codes[0]) {
      if (z) for (let i = 0; i < 1 << codes[0]; i++) this.voxels.copyWithin((z + i) * plane, (z - 1) * plane, z * plane);
      for (let y = 0; y < n1; y += 1 << codes[1]) for (let x = 0; x < n2; x += 1 << codes[2]) this.descend([z, y, x], 0);
    }
  }

  /** The voxels that are inside the volume. */
  inside(): Float32Array {
    const [n0, n1, n2] = this.task.extent;
    const [, height, width] = this.shape;
    if (height === n1 && width === n2) return this.voxels.subarray(0, n0 * n1 * n2).slice();
    const voxels = new Float32Array(n0 * n1 * n2);
    for (let z = 0; z < n0; z++)
      for (let y = 0; y < n1; y++) {
        const row = (z * height + y) * width;
        voxels.set(this.voxels.subarray(row, row + n2), (z * n1 + y) * n2);
      }
    return voxels;
  }

  private descend(corner: Triple, level: number): void {
    const { codes, extent } = this.task;
    if (corner.some((at, a) => at >= extent[a]!)) return;
    const logs = codes.map((code) => Math.max(0, code - level)) as unknown as Triple;
    const around = [this.ownerOf(corner, 2), this.ownerOf(corner, 1), this.ownerOf(corner, 0)] as const;
    if (level < this.deepest && this.isSplit(level, around)) {
      const inner = codes.map((code) => Math.max(0, code - level - 1)) as unknown as Triple;
      const counts = logs.map((log, a) => 1 << (log - inner[a]!));
      for (let z = 0; z < counts[0]!; z++)
        for (let y = 0; y < counts[1]!; y++)
          for (let x = 0; x < counts[2]!; x++)
            this.descend([corner[0] + (z << inner[0]), corner[1] + (y << inner[1]), corner[2] + (x << inner[2])], level + 1);
      return;
    }
    const block: Block = { corner, logs, sides: logs.map((log) => 1 << log) as unknown as Triple, level, mode: 0, box: [0, 0, 0], coded: false };
    block.mode = this.readMode(level, around);
    this.readBox(block, around);
    this.own(block);
    predict(this.voxels, this.shape, block, block.mode, this.rules);
    if (block.coded) this.readSymbols(block, around);
  }

  private ownerOf(corner: Triple, axis: number): Block | undefined {
    if (corner[axis] === 0) return undefined;
    const [s0, s1, s2] = this.smallest;
    const z = (corner[0] - (axis === 0 ? 1 : 0)) >> s0;
    const y = (corner[1] - (axis === 1 ? 1 : 0)) >> s1;
    const x = (corner[2] - (axis === 2 ? 1 : 0)) >> s2;
    return this.blocks[this.owners[(z * this.owned[1] + y) * this.owned[2] + x]!];
  }

  private own(block: Block): void {
    const number = this.blocks.push(block) - 1;
    const [z, y, x] = block.corner.map((at, a) => at >> this.smallest[a]!) as unknown as Triple;
    const [n0, n1, n2] = block.sides.map((n, a) => n >> this.smallest[a]!) as unknown as Triple;
    for (let i = z; i < z + n0; i++)
      for (let j = y; j < y + n1; j++) {
        const row = (i * this.owned[1] + j) * this.owned[2] + x;
        this.owners.fill(number, row, row + n2);
      }
  }

  private decide(kind: number, v0: number, v1: number, v2: number, v3: number, v4: number, v5: number): number {
    const k = KIND_CONTEXTS * kind;
    return this.coder.decide(k + v0, k + 384 + v1, k + 768 + v2, k + 1152 + v3, k + 1536 + v4, k + 1920 + v5, k + 2304, kind);
  }

  private isSplit(level: number, [w, n, u]: Around): boolean {
    const state = (block: Block | undefined): number => (block === undefined ? 0 : block.level > level ? 2 : 1);
    const deeper = [w, n, u].filter((block) => state(block) === 2).length;
    const v1 = 27 * level + state(w) + 3 * state(n) + 9 * state(u);
    return this.decide(0, 4 * level + deeper, v1, 6 * level + family(u), 4 * level + codedOf([w, n, u]), 6 * family(w) + family(n), level) === 1;
  }

  private readMode(level: number, around: Around): number {
    const [w, n, u] = around;
    const modes = around.map((block) => block?.mode ?? -1);
    const e = (modes[0] === modes[1] ? 1 : 0) + (modes[1] === modes[2] ? 2 : 0) + (modes[2] === modes[0] ? 4 : 0);
    const alike = around.filter((block) => block?.level === level).length;
    const refused = new Set<number>();
    for (const [i, block] of [u, n, w].entries()) {
      if (!block || refused.has(block.mode)) continue;
      const f = family(block);
      const straight = block.mode >= 2 && slopeOf(block.mode, 0) === 7 && slopeOf(block.mode, 1) === 7 ? 4 : 0;
      if (this.decide(1 + i, 4 * e + level, 4 * f + level, 2 * f + (block.coded ? 1 : 0), 6 * e + f, level + straight, 4 * level + alike)) return block.mode;
      refused.add(block.mode);
    }
    let i = 0;
    while (i < 4 && !this.decide(4 + i, level, e, family(u), family(n), family(w), 8 * level + e)) i++;
    if (i < 2) return i;
    const axis = i - 2;
    const same = around.filter((block) => block !== undefined && block.mode >= 2 && axisOf(block.mode) === axis).at(-1);
    const numbers: number[] = [];
    for (let j = 0; j < 2; j++) {
      const g = same ? slopeOf(same.mode, j) : 15;
      const h = j === 1 ? numbers[0]! : same ? slopeOf(same.mode, 1) : 15;
      let size = 0;
      for (; size < this.rules.slopes.length; size++) {
        const r = 7 * axis + size;
        if (!this.decide(8 + j, r, 16 * r + g, 16 * size + h, 21 * level + r, 16 * g + h, 8 * size + e)) break;
      }
      if (size && !this.decide(10 + j, axis, 16 * axis + g, 16 * axis + h, 3 * level + axis, 16 * g + h, size)) size = -size;
      numbers.push(7 + size);
    }
    return 2 + 225 * axis + 15 * numbers[0]! + numbers[1]!;
  }

  private readBox(block: Block, around: Around): void {
    const { level, logs, box } = block;
    const f = family(block);
    const m = codedOf(around);
    const c = around.filter((other) => other).length;
    const which = around.reduce((sum, other, i) => sum + (other?.coded ? 1 << i : 0), 0);
    block.coded = this.decide(12, 6 * level + f, 4 * m + c, 16 * level + 4 * m + c, 4 * f + m, c, which) === 1;
    if (!block.coded) return;
    for (let a = 0; a < 3; a++) {
      const q = logs[a]!;
      let sum = 0;
      for (const other of around) if (other?.coded) sum += Math.max(0, other.box[a]! + q - other.logs[a]!);
      const t = m ? Math.min(6, Math.floor((2 * sum + m) / (2 * m))) : 7;
      const x = a > 0 ? box[0] + 1 : 0;
      const y = a > 1 ? box[1] + 1 : 0;
      const z = Math.min(15, x + y);
      let i = 0;
      while (i < q && this.decide(13 + a, 5 * q + i, 8 * i + t, 7 * x + y + (i > 0 ? 49 : 0), 16 * i + z, 16 * t + z, 4 * (6 * i + f) + m)) i++;
      box[a] = i;
    }
  }

  private readSymbols(block: Block, around: Around): void {
    const { magnitudes, shape, coder } = this;
    const { corner, sides, box, level } = block;
    const sy = shape[2], sz = shape[1] * shape[2];
    const [b0, b1, b2] = [1 << box[0], 1 << box[1], 1 << box[2]] as const;
    const coefficients = this.correction.clear(sides);
    const { step, offsets } = this.task;
    const neighbours = around.filter((other): other is Block => other !== undefined && other.coded);
    for (let i = 0; i < b0; i++)
      for (let j = 0; j < b1; j++)
        for (let k = 0; k < b2; k++) {
          const p = (corner[0] + i) * sz + (corner[1] + j) * sy + corner[2] + k;
          const w = k > 0 ? magnitudes[p - 1]! : 0, n = j > 0 ? magnitudes[p - sy]! : 0, u = i > 0 ? magnitudes[p - sz]! : 0;
          let same = 3 * (w + n + u);
          if (k > 1) same += magnitudes[p - 2]!;
          if (j > 1) same += magnitudes[p - 2 * sy]!;
          if (i > 1) same += magnitudes[p - 2 * sz]!;
          let diagonal = 0;
          if (j > 0 && k > 0) diagonal += magnitudes[p - sy - 1]!;
          if (j > 0 && k + 1 < sides[2]) diagonal += magnitudes[p - sy + 1]!;
          if (i > 0 && k > 0) diagonal += magnitudes[p - sz - 1]!;
          if (i > 0 && k + 1 < sides[2]) diagonal += magnitudes[p - sz + 1]!;
          if (i > 0 && j > 0) diagonal += magnitudes[p - sz - sy]!;
          if (i > 0 && j + 1 < sides[1]) diagonal += magnitudes[p - sz + sy]!;
          same += 2 * diagonal;
          let beside = 0;
          for (const other of neighbours) beside += this.besideIn(other, block, i, j, k);
          const sum = i + j + k;
          const r = sum < 12 ? sum : 12 + (sum >= 16 ? 1 : 0) + (sum >= 24 ? 1 : 0) + (sum >= 40 ? 1 : 0);
          const l = (2 * (i + 1) > b0 ? 1 : 0) + (2 * (j + 1) > b1 ? 1 : 0) + (2 * (k + 1) > b2 ? 1 : 0);
          const a = quantised(A, same), b = quantised(B, beside), t = quantised(E, same + 2 * beside);
          const c0 = 36 * (32 - Math.clz32(i)) + 6 * (32 - Math.clz32(j)) + 32 - Math.clz32(k);
          const c1 = 216 + 10 * level + a, c2 = 256 + 4 * (7 * a + b) + l, c3 = 536 + 16 * b + r, c4 = 648 + 4 * t + level;
          const c5 = 712 + 27 * r + Math.min(w, 2) + 3 * Math.min(n, 2) + 9 * Math.min(u, 2), c6 = 1144 + 10 * r + a;
          const set = SYMBOL_SET + (t < 4 ? 0 : t < 9 ? 1 : 2);
          const ask = (kind: number): number => {
            const base = SYMBOLS_BASE + SYMBOL_CONTEXTS * kind;
            return coder.decide(base + c0, base + c1, base + c2, base + c3, base + c4, base + c5, base + c6, set + 3 * kind);
          };
          if (!ask(0)) continue;
          let size = 1;
          if (ask(1)) {
            let bits = 0;
            while (bits < MOST_BITS && ask(Math.min(2 + bits, 4))) bits++;
            size = 1 + ((1 << bits) | coder.bits(bits));
          }
          magnitudes[p] = size;
          const value = (size - offsets[size === 1 ? 0 : 1] / 256) * step;
          coefficients[(i * sides[1] + j) * sides[2] + k] = coder.bit() ? -value : value;
        }
    const sines = [0, 1, 2].map((a) => this.rules.hasSines(block.mode, a));
    this.correction.add(this.voxels, shape, block, [b0, b1, b2], sines);
  }

  /** Twice the magnitude at the same place of a neighbour, and those at the six places next to it there. */
  private besideIn(other: Block, block: Block, i: number, j: number, k: number): number {
    const { magnitudes, shape } = this;
    const sy = shape[2], sz = shape[1] * shape[2];
    const z = (i << other.logs[0]) >> block.logs[0];
    const y = (j << other.logs[1]) >> block.logs[1];
    const x = (k << other.logs[2]) >> block.logs[2];
    const p = (other.corner[0] + z) * sz + (other.corner[1] + y) * sy + other.corner[2] + x;
    let sum = 2 * magnitudes[p]!;
    if (z > 0) sum += magnitudes[p - sz]!;
    if (z + 1 < other.sides[0]) sum += magnitudes[p + sz]!;
    if (y > 0) sum += magnitudes[p - sy]!;
    if (y + 1 < other.sides[1]) sum += magnitudes[p + sy]!;
    if (x > 0) sum += magnitudes[p - 1]!;
    if (x + 1 < other.sides[2]) sum += magnitudes[p + 1]!;
    return sum;
  }
}

/** W, N and U; one outside the tile is not there. */
type Around = readonly [Block | undefined, Block | undefined, Block | undefined];

function family(block: Block | undefined): number {
  if (block === undefined) return 0;
  return block.mode < 2 ? block.mode + 1 : 3 + axisOf(block.mode);
}

function codedOf(around: readonly (Block | undefined)[]): number {
  return around.filter((block) => block?.coded).length;
}
