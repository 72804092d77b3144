import type { Cursor } from './cursor.js';

/** Where the streams of a segment lie in it. */
export interface Streams {
  readonly starts: Float64Array;
  readonly stops: Float64Array;
}

/** The lengths of `count` streams that fill the rest of a segment of `size` bytes; each length takes a byte at least. */
export function parseStreams(cursor: Cursor, count: number, size: number): Streams {
  if (count > size) cursor.fail(`expected the lengths of ${count} streams, got ${size} bytes in all`);
  if (count > cursor.left) cursor.fail('the lengths are cut off');
  const starts = new Float64Array(count);
  const stops = new Float64Array(count);
  let total = 0;
  for (let i = 0; i < count; i++) {
    starts[i] = total;
    total += cursor.varint(size, 'the length of a stream');
    stops[i] = total;
  }
  const first = cursor.position;
  if (first + total !== size) cursor.fail(`expected streams of ${size - first} bytes in all, got ${total}`);
  for (let i = 0; i < count; i++) {
    starts[i]! += first;
    stops[i]! += first;
  }
  return { starts, stops };
}
