import { crc32c } from './crc32c.js';
import { Cursor } from './cursor.js';
import { FormatError, type FormatCode } from './errors.js';
import type { Segment } from './frame.js';

/** Where the bytes of a file come from. */
export interface Source {
  /** Undefined if the length is not known before something was read. */
  readonly size: number | undefined;
  /** Bytes `start … stop`, fewer only at the end of the file. */
  read(start: number, stop: number): Promise<Uint8Array>;
}

export class BytesSource implements Source {
  constructor(private readonly bytes: Uint8Array) {}

  get size(): number {
    return this.bytes.length;
  }

  read(start: number, stop: number): Promise<Uint8Array> {
    return Promise.resolve(this.bytes.subarray(start, stop));
  }
}

/** Reads that are less than this apart are one request: a round trip costs more than such a gap. */
const GAP = 2 ** 15;
/** A file of a server that does not know ranges is kept whole; pages embed no more either. */
const MOST_WHOLE = 2 ** 28;

interface Wanted {
  readonly start: number;
  readonly stop: number;
  readonly resolve: (bytes: Uint8Array) => void;
  readonly reject: (reason: unknown) => void;
}

/** A file on a server that answers range requests. What is asked for at once is fetched in as few requests as pay. */
export class HttpSource implements Source {
  size: number | undefined;
  private wanted: Wanted[] = [];
  /** The whole file, from a server that does not know ranges and answers with everything. */
  private whole: Uint8Array | undefined;

  constructor(
    private readonly url: string,
    private readonly fetcher: typeof fetch = (...request) => fetch(...request),
  ) {}

  /** Bytes that are kept. */
  get held(): number {
    return this.whole?.length ?? 0;
  }

  read(start: number, stop: number): Promise<Uint8Array> {
    if (start >= stop) return Promise.resolve(new Uint8Array(0));
    if (this.whole) return Promise.resolve(this.whole.subarray(start, stop));
    return new Promise((resolve, reject) => {
      this.wanted.push({ start, stop, resolve, reject });
      if (this.wanted.length === 1) setTimeout(() => this.send(), 0);
    });
  }

  private send(): void {
    const wanted = this.wanted.sort((a, b) => a.start - b.start);
    this.wanted = [];
    for (let i = 0; i < wanted.length; ) {
      const group = [wanted[i]!];
      let stop = wanted[i]!.stop;
      for (i++; i < wanted.length && wanted[i]!.start <= stop + GAP; i++) {
        group.push(wanted[i]!);
        stop = Math.max(stop, wanted[i]!.stop);
      }
      const { start } = group[0]!;
      this.bytesOf(start, stop - start).then(
        (bytes) => group.forEach((each) => each.resolve(bytes.subarray(each.start - start, each.stop - start))),
        (reason: unknown) => group.forEach((each) => each.reject(reason)),
      );
    }
  }

  /** The last bytes of the file. */
  readLast(count: number): Promise<Uint8Array> {
    return this.bytesOf(undefined, count);
  }

  /** Fetch so many bytes from a place on, or the last ones; fewer only where the file ends. */
  private async bytesOf(start: number | undefined, count: number): Promise<Uint8Array> {
    const range = start === undefined ? `-${count}` : `${start}-${start + count - 1}`;
    const bytes = this.whole ? undefined : await this.ask(range, start, count);
    if (bytes) return bytes;
    return start === undefined ? this.whole!.slice(-count) : this.whole!.subarray(start, start + count);
  }

  /** The bytes of a range; undefined where a server knows no ranges: then the whole file is kept. */
  private async ask(range: string, start: number | undefined, count: number): Promise<Uint8Array | undefined> {
    const response = await this.fetcher(this.url, { headers: { Range: `bytes=${range}` } });
    if (response.status === 200) {
      this.whole = await readBody(response, MOST_WHOLE, this.url);
      this.size = this.whole.length;
      return undefined;
    }
    const fail = (got: string): never => {
      throw new Error(`expected bytes ${range} of ${this.url}, got ${got}`);
    };
    if (response.status !== 206) fail(`the answer ${response.status}`);
    const said = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(response.headers.get('Content-Range') ?? '');
    if (!said) return fail('an answer that does not say which bytes it has; a server of another origin has to expose the header Content-Range');
    const [first, last, size] = said.slice(1).map(Number) as [number, number, number];
    if (this.size !== undefined && this.size !== size) fail(`a file of ${size} bytes instead of ${this.size}: it was replaced; load the page again`);
    const expected = start ?? Math.max(0, size - count);
    if (first !== expected || last + 1 !== Math.min(size, expected + count)) fail(`bytes ${first}-${last}: the server answered another range`);
    const bytes = await readBody(response, count, this.url);
    if (bytes.length !== last + 1 - first) fail(`${bytes.length} bytes: the answer is not what the server says it is`);
    this.size = size;
    return bytes;
  }
}

/** The body of an answer, which a server may make as long as it likes: no more than so many bytes of it are taken. */
async function readBody(response: Response, most: number, url: string): Promise<Uint8Array> {
  const reader = response.body!.getReader();
  const pieces: Uint8Array[] = [];
  let size = 0;
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    pieces.push(next.value);
    size += next.value.length;
    if (size > most) {
      void reader.cancel();
      throw new Error(`expected at most ${most} bytes of ${url}, got more; a web server that knows range requests sends only what is asked for`);
    }
  }
  const body = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    body.set(piece, at);
    at += piece.length;
  }
  return body;
}

/** A file of which the first bytes have been read. */
export class Begun implements Source {
  constructor(
    private readonly source: Source,
    private readonly start: Uint8Array,
  ) {}

  get size(): number | undefined {
    return this.source.size;
  }

  read(start: number, stop: number): Promise<Uint8Array> {
    return stop <= this.start.length ? Promise.resolve(this.start.subarray(start, stop)) : this.source.read(start, stop);
  }
}

/** A part of a file as a file: a chunk of a shard. */
export class Slice implements Source {
  constructor(
    private readonly source: Source,
    private readonly start: number,
    readonly size: number,
  ) {}

  read(start: number, stop: number): Promise<Uint8Array> {
    return this.source.read(this.start + Math.min(start, this.size), this.start + Math.min(stop, this.size));
  }
}

/** A segment of no more bytes than this is read as a whole and its checksum looked at. */
const WHOLE = 2 ** 18;

/** One segment of a file. Its checksum holds for all of it, so it is checked where all of it is read. */
export class Part {
  private whole: Promise<Uint8Array> | undefined;

  constructor(
    private readonly source: Source,
    private readonly segment: Segment,
    private readonly code: FormatCode,
  ) {}

  get length(): number {
    return this.segment.length;
  }

  readAll(): Promise<Uint8Array> {
    this.whole ??= this.checked();
    return this.whole;
  }

  private async checked(): Promise<Uint8Array> {
    const { offset, length, crc, item } = this.segment;
    const bytes = await this.source.read(offset, offset + length);
    if (bytes.length !== length) throw new FormatError('truncated', 'the file ends inside a segment');
    if (crc32c(bytes) !== crc) throw new FormatError('checksum', `the ${this.code} segment of item ${item} is damaged`);
    return bytes;
  }

  /** Bytes `start … stop` of the segment. */
  async read(start: number, stop: number): Promise<Uint8Array> {
    if (this.length <= WHOLE || this.source instanceof BytesSource) return (await this.readAll()).subarray(start, stop);
    const bytes = await this.source.read(this.segment.offset + start, this.segment.offset + stop);
    if (bytes.length !== stop - start) throw new FormatError('truncated', 'the file ends inside a segment');
    return bytes;
  }

  /**
   * Parse what the segment begins with, of which only the parser knows how long it is. Bytes are read until it is
   * content; what is wrong in the whole segment is an error.
   */
  async parseHead<T>(parse: (cursor: Cursor) => T): Promise<T> {
    for (let size = 2 ** 14; ; size *= 8) {
      const bytes = await this.read(0, Math.min(size, this.length));
      try {
        return parse(new Cursor(bytes, this.code));
      } catch (error) {
        if (!(error instanceof FormatError) || bytes.length === this.length) throw error;
      }
    }
  }
}
