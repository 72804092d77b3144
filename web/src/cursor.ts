import { FormatError, type FormatCode } from './errors.js';

/** Reads the fields of a part of a file from front to back; whatever is missing or misspelt is an error of that part. */
export class Cursor {
  position = 0;
  private readonly view: DataView;

  constructor(
    readonly bytes: Uint8Array,
    private readonly part: FormatCode,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.bytes.length - this.position;
  }

  fail(message: string): never {
    throw new FormatError(this.part, message);
  }

  private advance(count: number): number {
    if (count > this.left) this.fail(`expected ${count} more bytes, got ${this.left}; the part is cut off`);
    const start = this.position;
    this.position += count;
    return start;
  }

  byte(): number {
    return this.bytes[this.advance(1)]!;
  }

  u16(): number {
    return this.view.getUint16(this.advance(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.advance(4), true);
  }

  f32(): number {
    return this.view.getFloat32(this.advance(4), true);
  }

  f64(): number {
    return this.view.getFloat64(this.advance(8), true);
  }

  take(count: number): Uint8Array {
    const start = this.advance(count);
    return this.bytes.subarray(start, start + count);
  }

  rest(): Uint8Array {
    return this.take(this.left);
  }

  /** An unsigned LEB128 in its shortest spelling, below 2⁶³. */
  bigVarint(): bigint {
    let value = 0n;
    for (let i = 0; i < 9; i++) {
      const byte = this.byte();
      value |= BigInt(byte & 127) << BigInt(7 * i);
      if (byte < 128) {
        if (byte === 0 && i > 0) throw new FormatError('varint', 'expected the shortest spelling of a number');
        return value;
      }
    }
    throw new FormatError('varint', 'expected a number of 1 to 9 bytes, got a longer one');
  }

  /** The same, where no rule of the format lets a number pass 2⁵³: it is out of bounds there anyway. */
  varint(most: number, what: string, least = 0): number {
    const value = Number(this.bigVarint());
    if (value > most || value < least) this.fail(`expected ${what} from ${least} to ${most}, got ${value}`);
    return value;
  }

  bigZigzag(): bigint {
    const value = this.bigVarint();
    return value & 1n ? -((value + 1n) >> 1n) : value >> 1n;
  }

  zigzag(most: number, what: string): number {
    const value = Number(this.bigZigzag());
    if (Math.abs(value) > most) this.fail(`expected ${what} within ±${most}, got ${value}`);
    return value;
  }

  end(): void {
    if (this.left) this.fail(`expected the end, got ${this.left} more bytes`);
  }
}
