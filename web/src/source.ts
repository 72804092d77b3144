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
      this.fetchRange(start, stop).then(
        (bytes) => group.forEach((each) => each.resolve(bytes.subarray(each.start - start, each.stop - start))),
        (reason: unknown) => group.forEach((each) => each.reject(reason)),
      );
    }
  }

  private async fetchRange(start: number, stop: number): Promise<Uint8Array> {
    const response = await this.fetcher(this.url, { headers: { Range: `bytes=${start}-${stop - 1}` } });
    if (response.status === 206) {
      // A server of another origin may keep this header to itself.
      const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('Content-Range') ?? '');
      if (range && range[2] !== '*') this.size = Number(range[2]);
      const bytes = new Uint8Array(await response.arrayBuffer());
      if ((range && Number(range[1]) !== start) || bytes.length > stop - start)
        throw new Error(`expected bytes ${start} to ${stop} of ${this.url}, got others: the server answered another range`);
      return bytes;
    }
    if (response.status === 200) {
      this.whole = new Uint8Array(await response.arrayBuffer());
      this.size = this.whole.length;
      return this.whole.subarray(start, stop);
    }
    throw new Error(`expected bytes ${start} to ${stop} of ${this.url}, got the answer ${response.status}`);
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
