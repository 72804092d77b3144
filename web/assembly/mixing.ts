// The decisions of src/mixing.ts (docs/format.md, Mixed decisions), in AssemblyScript: a decision is nearly all that decoding
// takes, and its seven inputs are computed four at a time. build.mjs makes WebAssembly of it, which the page carries.
// src/mixing.ts fills the memory and says where in it what lies.

/** Tables: 4096 stretched probabilities of 2 bytes, 4095 squashed ones and 251 rates of 4. */
const STRETCH: usize = 0;
const SQUASH: usize = 8192;
const RATE: usize = 24576;
/** Sets of 7 weights and one that is 0; contexts, 256 · probability + count; a piece of the stream. */
const WEIGHTS: usize = 25600;
const CONTEXTS: usize = 29696;
const STREAM: usize = 204800;

const MOST_COUNT: i32 = 250;
const MOST_WEIGHT: i32 = 1 << 24;
/** What a decision changes a weight by at most: 2047 · 57344 / 2¹⁶, and rounding. */
const MOST_CHANGE: i32 = 1792;

/** Puts the next piece of the stream into the memory, and says how many bytes it has: zeros behind its end. */
@external("stream", "next")
declare function nextPiece(): u32;

let low: u32 = 0;
let high: u32 = 0;
let word: u32 = 0;
let at: u32 = 0;
let end: u32 = 0;
let sets: i32 = 0;
/** Decisions in which no weight can reach its limit. */
let safe: i32 = 0;

/** Begin with a stream; contexts and weights are in the memory. */
export function start(count: i32): void {
  low = 0;
  high = 0xffffffff;
  at = end = 0;
  sets = count;
  safe = 0;
  for (let i = 0; i < 4; i++) shiftIn();
}

// @ts-ignore: decorators of functions are AssemblyScript's
@inline
function shiftIn(): void {
  if (at == end) {
    end = nextPiece();
    at = 0;
  }
  word = (word << 8) | load<u8>(STREAM + at++);
}

/** A bit that is 1 with a probability in 65536ths. */
export function read(probability: u32): u32 {
  const range = high - low;
  const middle = low + (range >>> 16) * probability + (((range & 0xffff) * probability) >>> 16);
  const bit: u32 = word <= middle ? 1 : 0;
  if (bit) high = middle;
  else low = middle + 1;
  while (((low ^ high) & 0xff000000) == 0) {
    low <<= 8;
    high = (high << 8) | 255;
    shiftIn();
  }
  return bit;
}

/** Clip the weights, and count for how many decisions that is not needed. */
function limitWeights(): void {
  let largest = 0;
  for (let p = WEIGHTS; p < WEIGHTS + 32 * sets; p += 4) {
    const weight = min(MOST_WEIGHT, max(-MOST_WEIGHT, load<i32>(p)));
    store<i32>(p, weight);
    largest = max(largest, abs(weight));
  }
  safe = (MOST_WEIGHT - largest) / MOST_CHANGE;
}

// @ts-ignore
@inline
function stretched(context: i32): i32 {
  return load<i16>(STRETCH + ((context >> 12) << 1));
}

// @ts-ignore
@inline
function rateOf(context: i32): i32 {
  return load<i32>(RATE + ((context & 255) << 2));
}

// @ts-ignore
@inline
function four(a: i32, b: i32, c: i32, d: i32): v128 {
  return i32x4.replace_lane(i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(a), 1, b), 2, c), 3, d);
}

/**
 * What contexts have learnt. What lies between a probability and the bit shrinks: after a one 65535 − P by ⌊ ⌋, after a
 * zero P by ⌈ ⌉ of its product with the rate. 65535 − P is P with all bits turned.
 */
// @ts-ignore
@inline
function learnt(contexts: v128, rates: v128, turn: v128, up: v128): v128 {
  let x = v128.xor(i32x4.shr_s(contexts, 8), turn);
  const n = v128.and(contexts, i32x4.splat(255));
  x = i32x4.sub(x, i32x4.shr_u(i32x4.add(i32x4.mul(x, rates), up), 16));
  x = v128.xor(i32x4.max_s(x, i32x4.splat(32)), turn);
  return v128.or(i32x4.shl(x, 8), i32x4.sub(n, i32x4.lt_s(n, i32x4.splat(MOST_COUNT))));
}

// @ts-ignore
@inline
function moved(weights: v128, inputs: v128, error: v128): v128 {
  return i32x4.add(weights, i32x4.shr_s(i32x4.add(i32x4.mul(inputs, error), i32x4.splat(32768)), 16));
}

// @ts-ignore
@inline
function products(inputs: v128, weights: v128): v128 {
  return i64x2.add(i64x2.extmul_low_i32x4_s(inputs, weights), i64x2.extmul_high_i32x4_s(inputs, weights));
}

/** A decision with its seven contexts and its set of weights, which learn from it. */
export function decide(c0: usize, c1: usize, c2: usize, c3: usize, c4: usize, c5: usize, c6: usize, set: usize): u32 {
  const a0 = load<i32>(c0 << 2, CONTEXTS), a1 = load<i32>(c1 << 2, CONTEXTS), a2 = load<i32>(c2 << 2, CONTEXTS);
  const a3 = load<i32>(c3 << 2, CONTEXTS), a4 = load<i32>(c4 << 2, CONTEXTS), a5 = load<i32>(c5 << 2, CONTEXTS);
  const a6 = load<i32>(c6 << 2, CONTEXTS);
  const s = four(stretched(a0), stretched(a1), stretched(a2), stretched(a3));
  const t = four(stretched(a4), stretched(a5), stretched(a6), 0);
  const w = WEIGHTS + (set << 5);
  const u = v128.load(w), v = v128.load(w, 16);
  const sums = i64x2.add(products(s, u), products(t, v));
  const mixed = <i32>((i64x2.extract_lane(sums, 0) + i64x2.extract_lane(sums, 1)) >> 16);
  const probability = load<i32>((min(2047, max(-2047, mixed)) + 2047) << 2, SQUASH);
  const bit = read(probability);

  const error = i32x4.splat((14 * ((<i32>bit << 16) - probability)) >> 4);
  v128.store(w, moved(u, s, error));
  v128.store(w, moved(v, t, error), 16);
  if (--safe < 0) limitWeights();

  const turned = bit ? 65535 : 0;
  const turn = i32x4.splat(turned), up = i32x4.splat(65535 - turned);
  const x = learnt(four(a0, a1, a2, a3), four(rateOf(a0), rateOf(a1), rateOf(a2), rateOf(a3)), turn, up);
  const y = learnt(four(a4, a5, a6, 0), four(rateOf(a4), rateOf(a5), rateOf(a6), 0), turn, up);
  store<i32>(c0 << 2, i32x4.extract_lane(x, 0), CONTEXTS);
  store<i32>(c1 << 2, i32x4.extract_lane(x, 1), CONTEXTS);
  store<i32>(c2 << 2, i32x4.extract_lane(x, 2), CONTEXTS);
  store<i32>(c3 << 2, i32x4.extract_lane(x, 3), CONTEXTS);
  store<i32>(c4 << 2, i32x4.extract_lane(y, 0), CONTEXTS);
  store<i32>(c5 << 2, i32x4.extract_lane(y, 1), CONTEXTS);
  store<i32>(c6 << 2, i32x4.extract_lane(y, 2), CONTEXTS);
  return bit;
}
