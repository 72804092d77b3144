// The inverse CDF 9/7 transform of a part of one axis. Arrays are (outer, n, inner), row-major.
//
// The page gives it as four lifting steps. As every sample is wanted once, it is computed from the 7 or 9 coefficients
// around it instead: the weights are what the lifting steps make of single coefficients.

const K = 1.230174104914001;
const STEPS = [
  [0, -0.443506852043971],
  [1, -0.882911075530934],
  [0, 0.052980118572961],
  [1, 1.586134342059924],
] as const;

/** Coefficients to either side of a sample that it is made of. */
const REACH = 4;

/** Weights of the coefficients at a distance of 0 … 4, for even samples and for odd ones. */
const [EVEN, ODD] = /* @__PURE__ */ ([0, 1] as const).map((parity) =>
  Float64Array.from({ length: REACH + 1 }, (_, distance) => response(parity, distance)),
) as [Float64Array, Float64Array];

/** What a single coefficient, `distance` after a sample of a parity, adds to that sample. */
function response(parity: number, distance: number): number {
  const data = new Float64Array(32);
  const sample = 14 + parity;
  const place = sample + distance;
  data[place] = place % 2 ? Math.SQRT2 / K : K / Math.SQRT2;
  for (const [odd, factor] of STEPS) for (let i = 2 + odd; i < 30; i += 2) data[i]! += factor * (data[i - 1]! + data[i + 1]!);
  return data[sample]!;
}

/** What samples `start … stop` of an axis of `size` are made of. */
export interface Window {
  readonly start: number;
  readonly stop: number;
  readonly size: number;
  readonly lows: readonly [number, number];
  readonly highs: readonly [number, number];
}

export function windowOf(start: number, stop: number, size: number): Window {
  const from = Math.max(0, start - REACH) & ~1;
  const to = Math.min(size, stop + REACH);
  return { start, stop, size, lows: [from / 2, (to + 1) >> 1], highs: [from / 2, to >> 1] };
}

/** A coefficient's place: beyond an end lies the one as far on the other side. */
function mirrored(place: number, size: number): number {
  let at = place;
  while (at < 0 || at >= size) at = at < 0 ? -at : 2 * (size - 1) - at;
  return at;
}

/** Join the low-pass and the high-pass half along an axis. */
export function join(low: Float32Array, high: Float32Array, outer: number, window: Window, inner: number): Float32Array {
  const { start, stop, size, lows, highs } = window;
  const lowRows = lows[1] - lows[0], highRows = highs[1] - highs[0];
  const joined = new Float32Array(outer * (stop - start) * inner);
  if (size === 1) {
    for (let i = 0; i < joined.length; i++) joined[i] = (K / Math.SQRT2) * low[i]!;
    return joined;
  }
  const rows = new Int32Array(2 * REACH + 1);
  if (inner === 1) {
    for (let o = 0; o < outer; o++) joinLine(low, o * lowRows, high, o * highRows, window, rows, joined, o * (stop - start));
    return joined;
  }
  for (let sample = start; sample < stop; sample++) {
    findRows(rows, sample, window);
    for (let o = 0; o < outer; o++) {
      const to = (o * (stop - start) + sample - start) * inner;
      if (sample & 1) joinOdd(low, o * lowRows, high, o * highRows, rows, inner, joined, to);
      else joinEven(low, o * lowRows, high, o * highRows, rows, inner, joined, to);
    }
  }
  return joined;
}

/** In which rows of their halves the coefficients around a sample are. */
function findRows(rows: Int32Array, sample: number, { size, lows, highs }: Window): void {
  for (let j = -REACH; j <= REACH; j++) {
    const place = mirrored(sample + j, size);
    rows[j + REACH] = (place >> 1) - (place & 1 ? highs[0] : lows[0]);
  }
}

/** The same for a line whose samples lie side by side: its ends one by one, the others in pairs. */
function joinLine(
  low: Float32Array, lowAt: number, high: Float32Array, highAt: number, window: Window, rows: Int32Array, joined: Float32Array, to: number,
): void {
  const { start, stop, size, lows, highs } = window;
  const [e0, e1, e2, e3] = EVEN as unknown as [number, number, number, number];
  const [o0, o1, o2, o3, o4] = ODD as unknown as [number, number, number, number, number];
  const first = Math.min(stop, (Math.max(start, REACH) + 1) & ~1);
  const last = Math.max(first, Math.min(stop, size - REACH - 1) & ~1);
  for (let sample = start; sample < stop; sample++) {
    if (sample === first) sample = last;
    if (sample >= stop) break;
    findRows(rows, sample, window);
    if (sample & 1) joinOdd(low, lowAt, high, highAt, rows, 1, joined, to + sample - start);
    else joinEven(low, lowAt, high, highAt, rows, 1, joined, to + sample - start);
  }
  let l = lowAt + first / 2 - lows[0], h = highAt + first / 2 - highs[0];
  for (let sample = first, at = to + first - start; sample < last; sample += 2, at += 2, l++, h++) {
    const l0 = low[l]!, l1 = low[l + 1]!, h0 = high[h]!, h1 = high[h - 1]!, l2 = low[l - 1]!, h2 = high[h + 1]!;
    joined[at] = e0 * l0 + e1 * (h1 + h0) + e2 * (l2 + l1) + e3 * (high[h - 2]! + h2);
    joined[at + 1] = o0 * h0 + o1 * (l0 + l1) + o2 * (h1 + h2) + o3 * (l2 + low[l + 2]!) + o4 * (high[h - 2]! + high[h + 2]!);
  }
}

function joinEven(
  low: Float32Array, lowRow: number, high: Float32Array, highRow: number, rows: Int32Array, inner: number, joined: Float32Array, to: number,
): void {
  const [w0, w1, w2, w3] = EVEN as unknown as [number, number, number, number];
  const l0 = (lowRow + rows[4]!) * inner, l1 = (lowRow + rows[2]!) * inner, l2 = (lowRow + rows[6]!) * inner;
  const h0 = (highRow + rows[3]!) * inner, h1 = (highRow + rows[5]!) * inner, h2 = (highRow + rows[1]!) * inner, h3 = (highRow + rows[7]!) * inner;
  for (let i = 0; i < inner; i++)
    joined[to + i] = w0 * low[l0 + i]! + w1 * (high[h0 + i]! + high[h1 + i]!) + w2 * (low[l1 + i]! + low[l2 + i]!) + w3 * (high[h2 + i]! + high[h3 + i]!);
}

function joinOdd(
  low: Float32Array, lowRow: number, high: Float32Array, highRow: number, rows: Int32Array, inner: number, joined: Float32Array, to: number,
): void {
  const [w0, w1, w2, w3, w4] = ODD as unknown as [number, number, number, number, number];
  const l0 = (lowRow + rows[3]!) * inner, l1 = (lowRow + rows[5]!) * inner, l2 = (lowRow + rows[1]!) * inner, l3 = (lowRow + rows[7]!) * inner;
  const h0 = (highRow + rows[4]!) * inner, h1 = (highRow + rows[2]!) * inner, h2 = (highRow + rows[6]!) * inner;
  const h3 = (highRow + rows[0]!) * inner, h4 = (highRow + rows[8]!) * inner;
  for (let i = 0; i < inner; i++)
    joined[to + i] =
      w0 * high[h0 + i]! + w1 * (low[l0 + i]! + low[l1 + i]!) + w2 * (high[h1 + i]! + high[h2 + i]!) + w3 * (low[l2 + i]! + low[l3 + i]!) +
      w4 * (high[h3 + i]! + high[h4 + i]!);
}
