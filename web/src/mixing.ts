// Mixed decisions (docs/format.md). The coder is exact in integers: products of up to 2³² are taken with Math.imul and
// read as unsigned, and the one sum that passes 2³¹, of stretched probabilities times weights, is of doubles, which are
// exact to 2⁵³.

const STRETCH = /* @__PURE__ */ Int16Array.from({ length: 4096 }, (_, i) =>
  Math.min(2047, Math.max(-2047, Math.floor(256 * Math.log((i + 0.5) / (4095.5 - i)) + 0.5))),
);
const SQUASH = /* @__PURE__ */ Int32Array.from({ length: 4095 }, (_, i) =>
  Math.min(65520, Math.max(16, Math.floor(65536 / (1 + Math.exp((2047 - i) / 256)) + 0.5))),
);
const MOST_COUNT = 250;
const RATE = /* @__PURE__ */ Int32Array.from({ length: MOST_COUNT + 1 }, (_, n) => Math.floor(327680 / (5 * n + 8)));
const MOST_WEIGHT = 2 ** 24;

/** What a decoder has learnt: per context 256 · probability + count, and sets of 7 weights. */
export interface Statistics {
  readonly contexts: Int32Array;
  readonly weights: Float64Array;
}

export function freshStatistics(contexts: number, sets: number, weight: number): Statistics {
  return { contexts: new Int32Array(contexts).fill(32768 << 8), weights: new Float64Array(7 * sets).fill(weight) };
}

export function copyStatistics({ contexts, weights }: Statistics): Statistics {
  return { contexts: contexts.slice(), weights: weights.slice() };
}

export class MixingDecoder {
  private readonly contexts: Int32Array;
  private readonly weights: Float64Array;
  private low = 0;
  private high = 0xffffffff;
  private word = 0;
  private at = 4;

  constructor(
    private readonly stream: Uint8Array,
    statistics: Statistics,
  ) {
    this.contexts = statistics.contexts;
    this.weights = statistics.weights;
    const byte = (i: number): number => (i < stream.length ? stream[i]! : 0);
    this.word = ((byte(0) << 24) | (byte(1) << 16) | (byte(2) << 8) | byte(3)) >>> 0;
  }

  /** A bit that is 1 with a probability in 65536ths. */
  private read(probability: number): number {
    const range = this.high - this.low;
    // Both products are below 2³², so the shift that reads them as unsigned is exact.
    const middle =
      this.low + (Math.imul(range >>> 16, probability) >>> 0) + (Math.imul(range & 0xffff, probability) >>> 16);
    let bit: number;
    if (this.word <= middle) {
      bit = 1;
      this.high = middle;
    } else {
      bit = 0;
      this.low = middle + 1;
    }
    while (((this.low ^ this.high) & 0xff000000) === 0) {
      this.low = (this.low << 8) >>> 0;
      this.high = ((this.high << 8) | 255) >>> 0;
      this.word = ((this.word << 8) | (this.at < this.stream.length ? this.stream[this.at]! : 0)) >>> 0;
      this.at++;
    }
    return bit;
  }

  /** A bit that nothing is known of. */
  bit(): number {
    return this.read(32768);
  }

  /** A number of such bits, the highest first. */
  bits(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) value = value * 2 + this.read(32768);
    return value;
  }

  /** A decision with its seven contexts and its set of weights, which learn from it. */
  decide(c0: number, c1: number, c2: number, c3: number, c4: number, c5: number, c6: number, set: number): number {
    const { contexts, weights } = this;
    const a0 = contexts[c0]!, a1 = contexts[c1]!, a2 = contexts[c2]!, a3 = contexts[c3]!;
    const a4 = contexts[c4]!, a5 = contexts[c5]!, a6 = contexts[c6]!;
    const s0 = STRETCH[a0 >> 12]!, s1 = STRETCH[a1 >> 12]!, s2 = STRETCH[a2 >> 12]!, s3 = STRETCH[a3 >> 12]!;
    const s4 = STRETCH[a4 >> 12]!, s5 = STRETCH[a5 >> 12]!, s6 = STRETCH[a6 >> 12]!;
    const w = 7 * set;
    const sum =
      s0 * weights[w]! + s1 * weights[w + 1]! + s2 * weights[w + 2]! + s3 * weights[w + 3]! +
      s4 * weights[w + 4]! + s5 * weights[w + 5]! + s6 * weights[w + 6]!;
    const mixed = Math.floor(sum * 2 ** -16);
    const probability = SQUASH[mixed > 2047 ? 4094 : mixed < -2047 ? 0 : mixed + 2047]!;
    const bit = this.read(probability);
    const error = (14 * ((bit << 16) - probability)) >> 4;
    this.teach(w, s0, error);
    this.teach(w + 1, s1, error);
    this.teach(w + 2, s2, error);
    this.teach(w + 3, s3, error);
    this.teach(w + 4, s4, error);
    this.teach(w + 5, s5, error);
    this.teach(w + 6, s6, error);
    if (bit) {
      contexts[c0] = grown(a0); contexts[c1] = grown(a1); contexts[c2] = grown(a2); contexts[c3] = grown(a3);
      contexts[c4] = grown(a4); contexts[c5] = grown(a5); contexts[c6] = grown(a6);
    } else {
      contexts[c0] = shrunk(a0); contexts[c1] = shrunk(a1); contexts[c2] = shrunk(a2); contexts[c3] = shrunk(a3);
      contexts[c4] = shrunk(a4); contexts[c5] = shrunk(a5); contexts[c6] = shrunk(a6);
    }
    return bit;
  }

  private teach(at: number, stretched: number, error: number): void {
    const weight = this.weights[at]! + ((stretched * error + 32768) >> 16);
    this.weights[at] = weight > MOST_WEIGHT ? MOST_WEIGHT : weight < -MOST_WEIGHT ? -MOST_WEIGHT : weight;
  }
}

/** A context after a one: P += ⌊(65535 − P) · rate / 2¹⁶⌋. */
function grown(context: number): number {
  const count = context & 255;
  let p = context >> 8;
  p += Math.imul(65535 - p, RATE[count]!) >>> 16;
  if (p > 65503) p = 65503;
  return (p << 8) | (count < MOST_COUNT ? count + 1 : count);
}

/** A context after a zero: P += ⌊−P · rate / 2¹⁶⌋, the floor of a negative number being less the ceiling. */
function shrunk(context: number): number {
  const count = context & 255;
  let p = context >> 8;
  p -= (Math.imul(p, RATE[count]!) + 65535) >>> 16;
  if (p < 32) p = 32;
  return (p << 8) | (count < MOST_COUNT ? count + 1 : count);
}
