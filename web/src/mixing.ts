// Mixed decisions (docs/format.md). The decisions themselves are WebAssembly, made of assembly/mixing.ts: all of it is
// exact in integers. Here are the tables, which are computed in doubles, and what goes into its memory.
import code from 'tinc:mixing';

const MOST_COUNT = 250;

// Where things lie in the memory, see assembly/mixing.ts, and how many there may be.
const SQUASH_AT = 8192;
const RATE_AT = 24576;
const WEIGHTS_AT = 25600;
const CONTEXTS_AT = 29696;
const STREAM_AT = 204800;
const PIECE = 2 ** 13;
/** A set has 7 weights and one that is 0: eight are computed as fast as seven. */
const SET = 8;

/** What a decoder has learnt: per context 256 · probability + count, and sets of 7 weights, each with a 0 behind. */
export interface Statistics {
  readonly contexts: Int32Array;
  readonly weights: Int32Array;
}

export function freshStatistics(contexts: number, sets: number, weight: number): Statistics {
  const weights = Int32Array.from({ length: SET * sets }, (_, i) => (i % SET < 7 ? weight : 0));
  return { contexts: new Int32Array(contexts).fill(32768 << 8), weights };
}

type Decide = (c0: number, c1: number, c2: number, c3: number, c4: number, c5: number, c6: number, set: number) => number;

interface Machine {
  readonly memory: ArrayBuffer;
  readonly start: (sets: number) => void;
  readonly read: (probability: number) => number;
  readonly decide: Decide;
}

let made: Machine | undefined;
/** The stream that is decoded, and how far it is in the memory. */
let stream: Uint8Array = new Uint8Array(0);
let at = 0;

function nextPiece(): number {
  const piece = new Uint8Array(made!.memory, STREAM_AT, PIECE);
  const bytes = stream.subarray(at, at + PIECE);
  piece.set(bytes);
  piece.fill(0, bytes.length);
  at += bytes.length;
  return PIECE;
}

function machine(): Machine {
  if (made) return made;
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(code), { stream: { next: nextPiece } });
  const { memory, ...functions } = exports as unknown as { memory: WebAssembly.Memory } & Omit<Machine, 'memory'>;
  made = { ...functions, memory: memory.buffer };
  new Int16Array(made.memory, 0, 4096).forEach((_, i, table) =>
    (table[i] = Math.min(2047, Math.max(-2047, Math.floor(256 * Math.log((i + 0.5) / (4095.5 - i)) + 0.5)))));
  new Int32Array(made.memory, SQUASH_AT, 4095).forEach((_, i, table) =>
    (table[i] = Math.min(65520, Math.max(16, Math.floor(65536 / (1 + Math.exp((2047 - i) / 256)) + 0.5)))));
  new Int32Array(made.memory, RATE_AT, MOST_COUNT + 1).forEach((_, n, table) => (table[n] = Math.floor(327680 / (5 * n + 8))));
  return made;
}

/** Decodes one stream. There is one machine: a decoder is used until the next is made, and no longer. */
export class MixingDecoder {
  /** A decision with its seven contexts and its set of weights, which learn from it. */
  readonly decide: Decide;
  private readonly machine = machine();
  private readonly contexts: Int32Array;
  private readonly weights: Int32Array;

  constructor(bytes: Uint8Array, { contexts, weights }: Statistics) {
    const { memory, decide, start } = this.machine;
    if (WEIGHTS_AT + weights.byteLength > CONTEXTS_AT || CONTEXTS_AT + contexts.byteLength > STREAM_AT) throw new RangeError('too many contexts');
    this.weights = new Int32Array(memory, WEIGHTS_AT, weights.length);
    this.contexts = new Int32Array(memory, CONTEXTS_AT, contexts.length);
    this.weights.set(weights);
    this.contexts.set(contexts);
    this.decide = decide;
    stream = bytes;
    at = 0;
    start(weights.length / SET);
  }

  /** A bit that nothing is known of. */
  bit(): number {
    return this.machine.read(32768);
  }

  /** A number of such bits, the highest first. */
  bits(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) value = value * 2 + this.machine.read(32768);
    return value;
  }

  /** What it has learnt. */
  learnt(): Statistics {
    return { contexts: this.contexts.slice(), weights: this.weights.slice() };
  }
}
