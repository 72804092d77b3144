import { crc32c } from '../src/crc32c.js';
import { headSize, parseFrame } from '../src/frame.js';

/** A small generator of random numbers with a seed (xorshift), so that a failure can be repeated. */
export class Random {
  constructor(private state: number) {}

  below(limit: number): number {
    this.state ^= this.state << 13;
    this.state ^= this.state >>> 17;
    this.state ^= this.state << 5;
    return (this.state >>> 0) % limit;
  }
}

/** Change, insert or delete up to four bytes, or cut the end off. */
export function edited(content: Uint8Array, random: Random): Uint8Array {
  const damaged = [...content];
  for (let count = 1 + random.below(4); count > 0 && damaged.length; count--) {
    const at = random.below(damaged.length);
    const edit = random.below(5);
    if (edit < 2) damaged[at] = random.below(256);
    else if (edit === 2) damaged.splice(at, 0, random.below(256));
    else if (damaged.length > 1) damaged.splice(at, edit === 3 || !at ? 1 : damaged.length - at);
  }
  return Uint8Array.from(damaged);
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

const little = (value: number): number[] => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];

/** A file of a header and what follows it, with a length and a checksum that hold. */
export function sealed(header: Uint8Array, rest: Uint8Array): Uint8Array {
  const head = Uint8Array.from([0x89, 0x54, 0x4e, 0x43, 0x0d, 0x0a, 0x1a, 0x0a, 1, ...varint(header.length), ...header]);
  return Uint8Array.from([...head, ...little(crc32c(head)), ...rest]);
}

/** The header of a file, without its length and its checksum, and what follows. */
export function parts(file: Uint8Array): { header: Uint8Array; rest: Uint8Array } {
  const size = headSize(file)!;
  let start = 9;
  while (file[start]! >= 128) start++;
  return { header: file.slice(start + 1, size - 4), rest: file.slice(size) };
}

/** The file with other bytes in one segment, whose length and checksum hold; undefined where the table is not found. */
export function withSegment(file: Uint8Array, index: number, payload: Uint8Array): Uint8Array | undefined {
  const { segments } = parseFrame(file.subarray(0, headSize(file)), file.length);
  const { header, rest } = parts(file);
  const segment = segments[index]!;
  const row = [segment.kind, ...varint(segment.item), ...varint(segment.level), ...varint(segment.length), ...little(segment.crc)];
  for (let at = 0; at + row.length <= header.length; at++) {
    if (!row.every((byte, i) => header[at + i] === byte)) continue;
    const replaced = [segment.kind, ...varint(segment.item), ...varint(segment.level), ...varint(payload.length), ...little(crc32c(payload))];
    const first = segment.offset - (file.length - rest.length);
    const changed = [...header.slice(0, at), ...replaced, ...header.slice(at + row.length)];
    const body = [...rest.slice(0, first), ...payload, ...rest.slice(first + segment.length)];
    return sealed(Uint8Array.from(changed), Uint8Array.from(body));
  }
  return undefined;
}
