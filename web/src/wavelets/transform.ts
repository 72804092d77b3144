// The inverse CDF 9/7 transform of a part of one axis, by lifting. Arrays are (outer, n, inner), row-major.

const K = 1.230174104914001;
const LOW_GAIN = K / Math.SQRT2;
const HIGH_GAIN = Math.SQRT2 / K;
const STEPS = [
  [0, -0.443506852043971],
  [1, -0.882911075530934],
  [0, 0.052980118572961],
  [1, 1.586134342059924],
] as const;

/** Samples beyond those asked for that the filters reach. */
const REACH = 4;

/** Samples of a row that are joined at once: those of all rows of a window then stay in a processor's cache. */
const CHUNK = 1024;

/** What samples `start … stop` of an axis of `size` are made of. */
export interface Window {
  readonly start: number;
  readonly stop: number;
  /** The even first sample that is computed, and the one behind the last. */
  readonly from: number;
  readonly to: number;
  readonly lows: readonly [number, number];
  readonly highs: readonly [number, number];
}

export function windowOf(start: number, stop: number, size: number): Window {
  const from = Math.max(0, start - REACH) & ~1;
  const to = Math.min(size, stop + REACH);
  return { start, stop, from, to, lows: [from / 2, (to + 1) >> 1], highs: [from / 2, to >> 1] };
}

/** Join the low-pass and the high-pass half along an axis; ends that are not the axis' own are cut off again. */
export function join(low: Float32Array, high: Float32Array, outer: number, window: Window, inner: number): Float32Array {
  const { from, to, start, stop } = window;
  const n = to - from;
  const evens = (n + 1) >> 1;
  const odds = n >> 1;
  const joined = new Float32Array(outer * n * inner);
  for (let o = 0; o < outer; o++) {
    const base = o * n * inner;
    if (inner === 1) {
      joinLine(joined, base, low, o * evens, high, o * odds, n);
      continue;
    }
    for (let at = 0; at < inner; at += CHUNK) {
      const count = Math.min(CHUNK, inner - at);
      for (let i = 0; i < evens; i++) scaleRow(joined, base + 2 * i * inner + at, low, (o * evens + i) * inner + at, count, LOW_GAIN);
      for (let i = 0; i < odds; i++) scaleRow(joined, base + (2 * i + 1) * inner + at, high, (o * odds + i) * inner + at, count, HIGH_GAIN);
      if (n > 1) for (const [parity, factor] of STEPS) lift(joined, base + at, n, inner, count, parity, factor);
    }
  }
  if (start === from && stop === to) return joined;
  const part = new Float32Array(outer * (stop - start) * inner);
  for (let o = 0; o < outer; o++) {
    const first = (o * n + start - from) * inner;
    part.set(joined.subarray(first, first + (stop - start) * inner), o * (stop - start) * inner);
  }
  return part;
}

function scaleRow(to: Float32Array, at: number, from: Float32Array, first: number, count: number, factor: number): void {
  for (let i = 0; i < count; i++) to[at + i] = factor * from[first + i]!;
}

/** Every row of a parity += factor · (its neighbours); beyond an end lies the neighbour on the other side. */
function lift(data: Float32Array, base: number, n: number, step: number, count: number, parity: number, factor: number): void {
  for (let i = parity; i < n; i += 2) {
    const at = base + i * step;
    const left = i > 0 ? at - step : at + step;
    const right = i + 1 < n ? at + step : at - step;
    for (let j = 0; j < count; j++) data[at + j] = data[at + j]! + factor * (data[left + j]! + data[right + j]!);
  }
}

/** The same for a line whose samples lie side by side. */
function joinLine(to: Float32Array, base: number, low: Float32Array, lowAt: number, high: Float32Array, highAt: number, n: number): void {
  const end = base + n;
  for (let at = base, i = lowAt; at < end; at += 2) to[at] = LOW_GAIN * low[i++]!;
  for (let at = base + 1, i = highAt; at < end; at += 2) to[at] = HIGH_GAIN * high[i++]!;
  if (n === 1) return;
  for (const [parity, factor] of STEPS) {
    let at = base + parity;
    if (parity === 0) {
      to[at] = to[at]! + 2 * factor * to[at + 1]!;
      at += 2;
    }
    let left = to[at - 1]!;
    for (; at < end - 1; at += 2) {
      const right = to[at + 1]!;
      to[at] = to[at]! + factor * (left + right);
      left = right;
    }
    if (at === end - 1) to[at] = to[at]! + 2 * factor * to[at - 1]!;
  }
}
