import { FormatError } from './errors.js';

// A raw deflate stream (RFC 1951) is inflated here and not by DecompressionStream, which cannot tell where a stream
// ended, has no limit before it allocates, and is asynchronous.

const LENGTH_BASE = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_EXTRA = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
const CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const LONGEST = 15;

function fail(message: string): never {
  throw new FormatError('deflate', message);
}

/** A prefix code as a table: the next 15 bits of the stream → length + 16 · symbol; 0 where no code begins so. */
function makeTable(lengths: Uint8Array): { table: Uint16Array; bits: number } {
  const counts = new Uint16Array(LONGEST + 1);
  let bits = 1;
  for (const length of lengths) {
    counts[length]!++;
    if (length > bits) bits = length;
  }
  counts[0] = 0;
  const next = new Uint16Array(LONGEST + 2);
  let left = 1;
  for (let length = 1; length <= LONGEST; length++) {
    left = 2 * left - counts[length]!;
    if (left < 0) fail('expected a prefix code, got one with too many words');
    next[length + 1] = (next[length]! + counts[length]!) << 1;
  }
  const table = new Uint16Array(1 << bits);
  for (let symbol = 0; symbol < lengths.length; symbol++) {
    const length = lengths[symbol]!;
    if (length === 0) continue;
    let code = next[length]!++;
    let reversed = 0;
    for (let i = 0; i < length; i++, code >>= 1) reversed = (reversed << 1) | (code & 1);
    for (let i = reversed; i < 1 << bits; i += 1 << length) table[i] = length | (symbol << 4);
  }
  return { table, bits };
}

let fixed: { literals: ReturnType<typeof makeTable>; distances: ReturnType<typeof makeTable> } | undefined;

function fixedCodes(): NonNullable<typeof fixed> {
  if (fixed === undefined) {
    const lengths = new Uint8Array(288).fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280);
    fixed = { literals: makeTable(lengths), distances: makeTable(new Uint8Array(30).fill(5)) };
  }
  return fixed;
}

class Bits {
  private at = 0;
  private held = 0;
  private count = 0;

  constructor(private readonly bytes: Uint8Array) {}

  /** Make at least `count` bits ready, of zeros beyond the end: what takes such a bit fails in `drop`. */
  private fill(count: number): void {
    while (this.count < count) {
      this.held |= (this.at < this.bytes.length ? this.bytes[this.at]! : 0) << this.count;
      this.at++;
      this.count += 8;
    }
  }

  private drop(count: number): void {
    this.held >>>= count;
    this.count -= count;
    if (this.at - (this.count >> 3) > this.bytes.length) fail('the stream is cut off');
  }

  take(count: number): number {
    if (count === 0) return 0;
    this.fill(count);
    const value = this.held & ((1 << count) - 1);
    this.drop(count);
    return value;
  }

  symbol(code: { table: Uint16Array; bits: number }): number {
    this.fill(code.bits);
    const entry = code.table[this.held & ((1 << code.bits) - 1)]!;
    if (entry === 0) fail('expected a word of the code, got other bits');
    this.drop(entry & 15);
    return entry >> 4;
  }

  /** The next `count` whole bytes, from the next byte on. */
  raw(count: number): Uint8Array {
    this.drop(this.count & 7);
    const start = this.at - (this.count >> 3);
    if (start + count > this.bytes.length) fail('the stream is cut off');
    this.at = start + count;
    this.held = this.count = 0;
    return this.bytes.subarray(start, start + count);
  }

  get end(): number {
    return this.at - (this.count >> 3);
  }
}

/** Inflate a stream that fills `bytes` to at most `limit` bytes; memory grows with what it really holds. */
export function inflate(bytes: Uint8Array, limit: number): Uint8Array {
  const bits = new Bits(bytes);
  let out = new Uint8Array(Math.min(limit, Math.max(1024, 4 * bytes.length)));
  let size = 0;
  const room = (count: number): void => {
    if (size + count > limit) fail(`expected at most ${limit} bytes, got more`);
    if (size + count <= out.length) return;
    const larger = new Uint8Array(Math.min(limit, Math.max(2 * out.length, size + count)));
    larger.set(out);
    out = larger;
  };
  for (let last = false; !last; ) {
    last = bits.take(1) === 1;
    const kind = bits.take(2);
    if (kind === 3) fail('expected a block of kind 0, 1 or 2, got 3');
    if (kind === 0) {
      const head = bits.raw(4);
      const length = head[0]! | (head[1]! << 8);
      if ((length ^ (head[2]! | (head[3]! << 8))) !== 0xffff) fail('a length and its complement disagree');
      room(length);
      out.set(bits.raw(length), size);
      size += length;
      continue;
    }
    const { literals, distances } = kind === 1 ? fixedCodes() : readCodes(bits);
    for (;;) {
      const symbol = bits.symbol(literals);
      if (symbol < 256) {
        if (size === out.length) room(1);
        out[size++] = symbol;
        continue;
      }
      if (symbol === 256) break;
      if (symbol > 285) fail('expected a length code up to 285');
      const length = LENGTH_BASE[symbol - 257]! + bits.take(LENGTH_EXTRA[symbol - 257]!);
      const code = bits.symbol(distances);
      if (code > 29) fail('expected a distance code up to 29');
      const distance = DISTANCE_BASE[code]! + bits.take(DISTANCE_EXTRA[code]!);
      if (distance > size) fail('a distance leads to before the beginning');
      room(length);
      for (const stop = size + length; size < stop; size++) out[size] = out[size - distance]!;
    }
  }
  if (bits.end !== bytes.length) fail('the stream ends before its part does');
  return out.subarray(0, size);
}

function readCodes(bits: Bits): NonNullable<typeof fixed> {
  const literals = bits.take(5) + 257;
  const distances = bits.take(5) + 1;
  const used = bits.take(4) + 4;
  if (literals > 286 || distances > 30) fail('expected at most 286 and 30 codes, got more');
  const lengths = new Uint8Array(19);
  for (let i = 0; i < used; i++) lengths[CODE_LENGTH_ORDER[i]!] = bits.take(3);
  const code = makeTable(lengths);
  const all = new Uint8Array(literals + distances);
  for (let i = 0; i < all.length; ) {
    const symbol = bits.symbol(code);
    if (symbol < 16) {
      all[i++] = symbol;
      continue;
    }
    if (symbol === 16 && i === 0) fail('expected a code length before its repetition');
    const value = symbol === 16 ? all[i - 1]! : 0;
    const repeat = symbol === 16 ? 3 + bits.take(2) : symbol === 17 ? 3 + bits.take(3) : 11 + bits.take(7);
    if (i + repeat > all.length) fail('expected fewer code lengths');
    all.fill(value, i, i + repeat);
    i += repeat;
  }
  if (all[256] === 0) fail('expected a code for the end of a block');
  return { literals: makeTable(all.subarray(0, literals)), distances: makeTable(all.subarray(literals)) };
}
