import { Cursor } from '../cursor.js';
import { freshStatistics, MixingDecoder } from '../mixing.js';
import type { Triple } from '../box.js';

// Blocks of numbers (docs/format.md, Predicted voxels and Corrections). Numbers go to 2³³ and their products with
// weights to 2⁵²: they are doubles, and divisions by powers of two are floors of exact quotients.

const CONTEXTS = 34360;
const SETS = 88;
const MOST_CLASSES = 8;
const MOST_THRESHOLD = 2 ** 40;
const MOST_WEIGHT = 2 ** 15 - 1;
const NEIGHBOURS = 16;
const PLANAR = 6;

export interface NumbersTask {
  readonly kind: 'numbers';
  readonly stream: Uint8Array;
  readonly sides: Triple;
  readonly largest: number;
  /** Corrections are not predicted, and have a sign. */
  readonly corrections: boolean;
}

interface Predictor {
  readonly thresholds: readonly number[];
  /** A row of weights per class, and one more for the first of several planes. */
  readonly weights: Float64Array;
}

function parsePredictor(cursor: Cursor, planes: number): Predictor {
  const classes = cursor.byte();
  if (classes < 1 || classes > MOST_CLASSES) cursor.fail(`expected 1 to ${MOST_CLASSES} classes, got ${classes}`);
  let threshold = 0;
  const thresholds = Array.from({ length: classes - 1 }, () => (threshold += cursor.varint(MOST_THRESHOLD, 'a threshold')));
  const weights = new Float64Array((classes + 1) * NEIGHBOURS);
  const readRow = (row: number, count: number): void => {
    for (let i = 0; i < count; i++) weights[row * NEIGHBOURS + i] = cursor.zigzag(MOST_WEIGHT, 'a weight');
  };
  for (let row = 0; row < classes; row++) readRow(row, planes === 1 ? PLANAR : NEIGHBOURS);
  if (planes > 1) readRow(classes, PLANAR);
  return { thresholds, weights };
}

/** How many binary digits a whole number has. */
function digitsOf(value: number): number {
  return value < 4294967296 ? 32 - Math.clz32(value) : 64 - Math.clz32(Math.floor(value / 4294967296));
}

function quarters(value: number): number {
  if (value < 4) return value;
  const digits = digitsOf(value);
  // Behind the leading digit come two that count.
  const lead = value < 4294967296 ? value >>> (digits - 3) : Math.floor(value / 2 ** (digits - 3));
  return 4 * (digits - 2) + (lead & 3);
}

export function runNumbersTask({ stream, sides, largest, corrections }: NumbersTask): Float64Array {
  const [planes, height, width] = sides;
  const size = planes * height * width;
  // The last place of both is nobody's: a number of 0 with an error of 0.
  const numbers = new Float64Array(size + 1);
  if (corrections && stream.length === 0) return numbers.subarray(0, size);
  const errors = new Float64Array(size + 1);
  const cursor = new Cursor(stream, corrections ? 'corrections' : 'predicted');
  const predictor = corrections ? { thresholds: [], weights: new Float64Array(0) } : parsePredictor(cursor, planes);
  const { thresholds, weights } = predictor;
  const coder = new MixingDecoder(cursor.rest(), freshStatistics(CONTEXTS, SETS, 19660));
  const top = digitsOf(largest);
  const sums = new Float64Array(2048);
  const counts = new Int32Array(2048);
  const plane = height * width;
  const nobody = size;

  let i = 0;
  for (let z = 0; z < planes; z++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++, i++) {
        const up = z > 0;
        const u = up ? i - plane : nobody;
        const north = y > 0 ? width : 0, south = y + 1 < height ? width : 0;
        const west = x > 0 ? 1 : 0, east = x + 1 < width ? 1 : 0;
        const w = west ? i - 1 : y > 0 ? i - width : u;
        const n = north ? i - width : up ? u : w;
        const nw = north ? (west ? i - width - 1 : n) : up ? u - west : w;
        const ne = north ? (east ? i - width + 1 : n) : up ? u + east : w;
        const ww = x > 1 ? i - 2 : w;
        const nn = y > 1 ? i - 2 * width : n;
        const uw = up ? u - west : nobody, ue = up ? u + east : nobody;
        const un = up ? u - north : nobody, us = up ? u + south : nobody;
        const unw = up ? u - north - west : nobody, une = up ? u - north + east : nobody;
        const usw = up ? u + south - west : nobody, use = up ? u + south + east : nobody;
        const uu = z > 1 ? u - plane : u;

        const eW = errors[w]!, eN = errors[n]!, eU = errors[u]!;
        const aW = Math.abs(eW), aN = Math.abs(eN), aU = Math.abs(eU);
        const ahead = Math.abs(errors[ue]!) + Math.abs(errors[us]!) + Math.abs(errors[uw]!) + Math.abs(errors[un]!);
        const energy =
          2 * (aW + aN + aU) + Math.abs(errors[nw]!) + Math.abs(errors[ne]!) + Math.abs(errors[ww]!) + Math.abs(errors[nn]!) + ahead;

        let p = 0, q = 0, sides7 = 0, place: number, pair = 0;
        if (corrections) {
          sides7 = set(eW) | (set(eN) << 1) | (set(eU) << 2) | (set(errors[nw]!) << 3) | (set(errors[ne]!) << 4) | (set(errors[ue]!) << 5) | (set(errors[us]!) << 6);
          place =
            set(errors[ww]!) + set(errors[nn]!) + set(errors[uw]!) + set(errors[un]!) + set(errors[unw]!) + set(errors[une]!) +
            set(errors[usw]!) + set(errors[use]!) + set(errors[uu]!);
        } else {
          const vW = numbers[w]!, vN = numbers[n]!, vNW = numbers[nw]!, vNE = numbers[ne]!, vWW = numbers[ww]!, vNN = numbers[nn]!;
          const vU = numbers[u]!, vUE = numbers[ue]!, vUS = numbers[us]!, vUW = numbers[uw]!, vUN = numbers[un]!;
          const reference = up ? Math.floor((vW + vN + 2 * vU + 2) / 4) : Math.floor((vW + vN + 1) / 2);
          let activity = Math.abs(vW - vNW) + Math.abs(vN - vNW) + Math.abs(vN - vNE) + Math.abs(vW - vWW) + Math.abs(vN - vNN);
          if (up) activity += Math.abs(vU - vUW) + Math.abs(vU - vUE) + Math.abs(vU - vUN) + Math.abs(vU - vUS);
          let row = 0;
          if (!up && planes > 1) row = thresholds.length + 1;
          else while (row < thresholds.length && thresholds[row]! <= activity) row++;
          row *= NEIGHBOURS;
          let sum =
            weights[row]! * (vW - reference) + weights[row + 1]! * (vN - reference) + weights[row + 2]! * (vNW - reference) +
            weights[row + 3]! * (vNE - reference) + weights[row + 4]! * (vWW - reference) + weights[row + 5]! * (vNN - reference);
          if (up)
            sum +=
              weights[row + 6]! * (vU - reference) + weights[row + 7]! * (vUW - reference) + weights[row + 8]! * (vUE - reference) +
              weights[row + 9]! * (vUN - reference) + weights[row + 10]! * (vUS - reference) +
              weights[row + 11]! * (numbers[unw]! - reference) + weights[row + 12]! * (numbers[une]! - reference) +
              weights[row + 13]! * (numbers[usw]! - reference) + weights[row + 14]! * (numbers[use]! - reference) +
              weights[row + 15]! * (numbers[uu]! - reference);
          p = 16 * reference + Math.floor((sum + 128) / 256);
          const whole = Math.floor(p / 16);
          sides7 =
            (vW > whole ? 1 : 0) | (vN > whole ? 2 : 0) | (vU > whole ? 4 : 0) | (vNW > whole ? 8 : 0) | (vNE > whole ? 16 : 0) |
            (vUE > whole ? 32 : 0) | (vUS > whole ? 64 : 0);
          pair = 16 * sides7 + Math.min(15, quarters(Math.floor(energy / 32)) >> 1);
          q = p;
          if (counts[pair]) q += Math.floor(sums[pair]! / counts[pair]!);
          q = Math.min(16 * largest, Math.max(0, q));
          place = Math.min(15, quarters(Math.floor(q / 16)) >> 2);
        }

        const near = Math.floor((q + 8) / 16);
        const fraction = q + 8 - 16 * near;
        const e = Math.min(39, quarters(Math.floor((5 * energy) / 64)));
        const w8 = Math.min(9, digitsOf(Math.floor(aW / 8))), n8 = Math.min(9, digitsOf(Math.floor(aN / 8)));
        const u8 = Math.min(9, digitsOf(Math.floor(aU / 8))), a8 = Math.min(9, digitsOf(Math.floor(ahead / 32)));
        const expected = Math.min(digitsOf(Math.floor(energy / 256)), top);

        // The digits of the residual: up from what is expected, or down from there.
        let digits = Math.max(1, expected);
        const half = fraction >> 1, tail = Math.min(4, e >> 3), third = Math.min(3, a8 >> 1);
        for (let m = digits, step = 1; ; ) {
          const a = Math.min(m, 19) + (step < 0 ? 20 : 0);
          const more = coder.decide(
            40 * a + e, 1600 + 100 * a + 10 * w8 + n8, 5600 + 100 * a + 10 * u8 + a8, 9600 + 160 * a + 8 * (e >> 1) + half,
            16000 + 128 * a + sides7, 21120 + 80 * a + 5 * place + tail, 24320 + 40 * a + 4 * u8 + third, a,
          );
          if (step > 0 && more) {
            digits = m;
            if (m === top) break;
            m++;
          } else if (step > 0) {
            digits = m - 1;
            if (m > Math.max(1, expected) || digits === 0) break;
            step = -1;
            m--;
          } else {
            digits = more ? m : m - 1;
            if (more || digits === 0) break;
            m--;
          }
        }

        let residual = 0;
        if (digits > 0) {
          const k = Math.min(digits, 8);
          const wPlus = eW > 0 ? 1 : 0, nPlus = eN > 0 ? 1 : 0, uPlus = eU > 0 ? 1 : 0;
          const s = 25920;
          const positive = coder.decide(
            s + 16 * k + fraction, s + 144 + 128 * k + sides7, s + 1296 + 16 * k + wPlus + 2 * nPlus + 4 * uPlus, s + 1440 + 40 * k + e,
            s + 1800 + 16 * k + place, s + 1944 + 20 * k + 2 * w8 + wPlus, s + 2124 + 20 * k + 2 * u8 + uPlus, 40 + k,
          );
          residual = 1;
          const kind = Math.min(digits, 12);
          for (let j = 0; j < digits - 1; j++) {
            if (j >= 3) {
              residual = 2 * residual + coder.bit();
              continue;
            }
            const d = 8 * kind + residual;
            const t = 28224;
            residual =
              2 * residual +
              coder.decide(
                t + 20 * d + (e >> 1), t + 2080 + 2 * d + positive, t + 2288 + 10 * d + w8, t + 3328 + 8 * d + (digits < 4 ? half : 0),
                t + 4160 + d, t + 4264 + 8 * d + (place >> 1), t + 5096 + 10 * d + u8, 49 + 13 * j + kind,
              );
          }
          if (!positive) residual = -residual;
        }
        const number = Math.min(largest, Math.max(corrections ? -largest : 0, near + residual));
        numbers[i] = number;
        errors[i] = 16 * number - q;
        if (!corrections) {
          if (counts[pair] === 255) {
            sums[pair] = Math.floor(sums[pair]! / 2);
            counts[pair] = 127;
          }
          sums[pair]! += 16 * number - p;
          counts[pair]!++;
        }
      }
  return numbers.subarray(0, size);
}

function set(error: number): number {
  return error !== 0 ? 1 : 0;
}
