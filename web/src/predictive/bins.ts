import { Cursor } from '../cursor.js';
import { type Dtype, halfToNumber, type Item } from '../frame.js';
import { inflate } from '../inflate.js';

const MOST_KEY = 2 ** 33;
const MOST_LISTED = 2 ** 20;
const WHOLE = 0;
const MULTIPLES = 2;

/** What the numbers of predicted voxels stand for. */
export interface Bins {
  readonly kind: number;
  readonly width: number;
  readonly first: number;
  readonly step: number;
  readonly listed: Float64Array | undefined;
}

export function parseBins(cursor: Cursor, dtype: Dtype): Bins {
  const code = cursor.byte();
  const kind = code & 3;
  if (code > 6 || kind === 3) cursor.fail(`expected bins of kind 0 to 2, listed or not, got ${code}`);
  if ((dtype[0] === 'f') === (kind === WHOLE)) cursor.fail(`expected other bins for voxels of ${dtype}`);
  const isListed = code >= 4;
  const width = kind === MULTIPLES ? cursor.f64() : 1;
  if (!(width > 0 && Number.isFinite(width))) cursor.fail(`expected a finite positive width, got ${width}`);
  const first = kind !== MULTIPLES || isListed ? cursor.zigzag(MOST_KEY, 'the first bin') : 0;
  const step = kind !== MULTIPLES && !isListed ? cursor.varint(MOST_KEY, 'the step of bins', 1) : 1;
  return { kind, width, first, step, listed: isListed ? parseListed(cursor, first) : undefined };
}

function parseListed(cursor: Cursor, first: number): Float64Array {
  const count = cursor.varint(MOST_LISTED, 'a number of bins', 2);
  const length = cursor.varint(2 ** 31, 'the length of the bins');
  const differences = new Cursor(inflate(cursor.take(length), 5 * count), 'predicted');
  const keys = new Float64Array(count);
  let key = first;
  keys[0] = key;
  for (let i = 1; i < count; i++) keys[i] = key += differences.varint(2 * MOST_KEY, 'a difference of bins', 1);
  differences.end();
  return keys;
}

/** Whether every number up to the largest one is a key that a file may name. */
export function checkLargest(cursor: Cursor, { kind, first, step, listed }: Bins, largest: number): void {
  if (kind === MULTIPLES || listed) return;
  if (Math.abs(first + largest * step) > MOST_KEY) cursor.fail('expected bins within ±2³³, got others');
}

/** The voxels of numbers, in place; the caller rounds them to the dtype. */
export function fromNumbers({ kind, width, first, step, listed }: Bins, numbers: Float64Array, dtype: Dtype, item: Item): Float64Array {
  const { minimum, maximum } = item;
  for (let i = 0; i < numbers.length; i++) {
    const number = numbers[i]!;
    const key = listed ? listed[Math.min(number, listed.length - 1)]! : kind === MULTIPLES ? number : first + number * step;
    let value = kind === WHOLE ? key : kind === MULTIPLES ? minimum + key * width : fromBits(key, dtype);
    if (Number.isNaN(value)) value = minimum;
    numbers[i] = Math.min(maximum, Math.max(minimum, value));
  }
  return numbers;
}

const scratch = new DataView(new ArrayBuffer(8));

/** Floats in the order of their values are counted by keys: those below the middle are negative. */
function fromBits(key: number, dtype: Dtype): number {
  const bits = 8 * Number(dtype[1]);
  const middle = 2 ** (bits - 1);
  if (bits === 64) {
    const wide = BigInt(key);
    const middle64 = 1n << 63n;
    scratch.setBigUint64(0, BigInt.asUintN(64, wide >= middle64 ? wide - middle64 : (1n << 64n) - 1n - wide));
    return scratch.getFloat64(0);
  }
  const unsigned = key >= middle ? key - middle : 2 ** bits - 1 - key;
  if (bits === 16) return halfToNumber(unsigned & 0xffff);
  scratch.setUint32(0, unsigned >>> 0);
  return scratch.getFloat32(0);
}

