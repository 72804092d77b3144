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
/** What a decision changes a weight by at most: 2047 · 57344 / 2¹⁶, and rounding. */
const MOST_CHANGE = 1792;

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

// Places in the coder's state.
const LOW = 0;
const HIGH = 1;
const WORD = 2;

export class MixingDecoder {
  private readonly contexts: Int32Array;
  private readonly weights: Float64Array;
  /** In an array of 32-bit numbers, for numbers beyond 2³⁰ that are fields of an object are slow. */
  private readonly state = Uint32Array.of(0, 0xffffffff, 0);
  private at = 4;
  /** Decisions in which no weight can reach its limit. */
  private safe = 0;

  constructor(
    private readonly stream: Uint8Array,
    statistics: Statistics,
  ) {
    this.contexts = statistics.contexts;
    this.weights = statistics.weights;
    const byte = (i: number): number => (i < stream.length ? stream[i]! : 0);
    this.state[WORD] = (byte(0) << 24) | (byte(1) << 16) | (byte(2) << 8) | byte(3);
  }

  /** A bit that is 1 with a probability in 65536ths. */
  private read(probability: number): number {
    const { state } = this;
    const low = state[LOW]!, high = state[HIGH]!;
    const range = (high - low) >>> 0;
    // Both products are below 2³², so the shift that reads them as unsigned is exact.
    const middle = (low + Math.imul(range >>> 16, probability) + (Math.imul(range & 0xffff, probability) >>> 16)) >>> 0;
    const bit = state[WORD]! <= middle ? 1 : 0;
    if (bit) state[HIGH] = middle;
    else state[LOW] = middle + 1;
    if (((state[LOW]! ^ state[HIGH]!) & 0xff000000) === 0) this.shift();
    return bit;
  }

  /** Drop the bytes that are settled. */
  private shift(): void {
    const { state, stream } = this;
    do {
      state[LOW] = state[LOW]! << 8;
      state[HIGH] = (state[HIGH]! << 8) | 255;
      state[WORD] = (state[WORD]! << 8) | (this.at < stream.length ? stream[this.at]! : 0);
      this.at++;
    } while (((state[LOW]! ^ state[HIGH]!) & 0xff000000) === 0);
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

  /**
   * A decision with its seven contexts and its set of weights, which learn from it. All is written out, for calls that
   * the compiler does not inline would cost more than what they do.
   */
  decide(c0: number, c1: number, c2: number, c3: number, c4: number, c5: number, c6: number, set: number): number {
    const { contexts, weights } = this;
    const a0 = contexts[c0]!, a1 = contexts[c1]!, a2 = contexts[c2]!, a3 = contexts[c3]!;
    const a4 = contexts[c4]!, a5 = contexts[c5]!, a6 = contexts[c6]!;
    const s0 = STRETCH[a0 >> 12]!, s1 = STRETCH[a1 >> 12]!, s2 = STRETCH[a2 >> 12]!, s3 = STRETCH[a3 >> 12]!;
    const s4 = STRETCH[a4 >> 12]!, s5 = STRETCH[a5 >> 12]!, s6 = STRETCH[a6 >> 12]!;
    const w = 7 * set;
    const w0 = weights[w]!, w1 = weights[w + 1]!, w2 = weights[w + 2]!, w3 = weights[w + 3]!;
    const w4 = weights[w + 4]!, w5 = weights[w + 5]!, w6 = weights[w + 6]!;
    const mixed = Math.floor((s0 * w0 + s1 * w1 + s2 * w2 + s3 * w3 + s4 * w4 + s5 * w5 + s6 * w6) * 2 ** -16);
    const probability = SQUASH[mixed > 2047 ? 4094 : mixed < -2047 ? 0 : mixed + 2047]!;
    const bit = this.read(probability);

    const error = (14 * ((bit << 16) - probability)) >> 4;
    weights[w] = w0 + ((s0 * error + 32768) >> 16);
    weights[w + 1] = w1 + ((s1 * error + 32768) >> 16);
    weights[w + 2] = w2 + ((s2 * error + 32768) >> 16);
    weights[w + 3] = w3 + ((s3 * error + 32768) >> 16);
    weights[w + 4] = w4 + ((s4 * error + 32768) >> 16);
    weights[w + 5] = w5 + ((s5 * error + 32768) >> 16);
    weights[w + 6] = w6 + ((s6 * error + 32768) >> 16);
    if (--this.safe < 0) this.limitWeights();

    // What lies between a probability and the bit shrinks: after a one 65535 − P by ⌊ ⌋, after a zero P by ⌈ ⌉ of its
    // product with the rate. 65535 − P is P with all bits turned.
    const turn = bit ? 65535 : 0;
    const up = 65535 - turn;
    let x = (a0 >> 8) ^ turn, n = a0 & 255;
    x -= (Math.imul(x, RATE[n]!) + up) >>> 16;
    contexts[c0] = (((x < 32 ? 32 : x) ^ turn) << 8) | (n + ((n - MOST_COUNT) >>> 31));
    x = (a1 >> 8) ^ turn, n = a1 & 255;
    x -= (Math.imul(x, RATE[n]!) + up) >>> 16;
    contexts[c1] = (((x < 32 ? 32 : x) ^ turn) << 8) | (n + ((n - MOST_COUNT) >>> 31));
    x = (a2 >> 8) ^ turn, n = a2 & 255;
    x -= (Math.imul(x, RATE[n]!) + up) >>> 16;
    contexts[c2] = (((x < 32 ? 32 : x) ^ turn) << 8) | (n + ((n - MOST_COUNT) >>> 31));
    x = (a3 >> 8) ^ turn, n = a3 & 255;
    x -= (Math.imul(x, RATE[n]!) + up) >>> 16;
    contexts[c3] = (((x < 32 ? 32 : x) ^ turn) << 8) | (n + ((n - MOST_COUNT) >>> 31));
    x = (a4 >> 8) ^ turn, n = a4 & 255;
    x -= (Math.imul(x, RATE[n]!) + up) >>> 16;
    contexts[c4] = (((x < 32 ? 32 : x) ^ turn) << 8) | (n + ((n - MOST_COUNT) >>> 31));
    x = (a5 >> 8) ^ turn, n = a5 & 255;
    x -= (Math.imul(x, RATE[n]!) + up) >>> 16;
    contexts[c5] = (((x < 32 ? 32 : x) ^ turn) << 8) | (n + ((n - MOST_COUNT) >>> 31));
    x = (a6 >> 8) ^ turn, n = a6 & 255;
    x -= (Math.imul(x, RATE[n]!) + up) >>> 16;
    contexts[c6] = (((x < 32 ? 32 : x) ^ turn) << 8) | (n + ((n - MOST_COUNT) >>> 31));
    return bit;
  }

  /** Clip the weights, and count for how many decisions that is not needed: asking each time takes a fifth of the time. */
  private limitWeights(): void {
    const { weights } = this;
    let largest = 0;
    for (let i = 0; i < weights.length; i++) {
      const weight = Math.min(MOST_WEIGHT, Math.max(-MOST_WEIGHT, weights[i]!));
      weights[i] = weight;
      largest = Math.max(largest, Math.abs(weight));
    }
    this.safe = Math.floor((MOST_WEIGHT - largest) / MOST_CHANGE);
  }
}
