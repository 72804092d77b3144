import { MixingDecoder, type Statistics } from '../mixing.js';
import { type BlockShape, decodeSymbols, freshCoefficients, type Parent, type Symbols } from './symbols.js';

/** Work for one call: a stream, and the blocks it holds from coarse to fine; only the trunk has more than one. */
export interface WaveletTask {
  readonly kind: 'wavelets';
  readonly stream: Uint8Array;
  readonly blocks: readonly BlockShape[];
  /** The masks of the octaves of `blocks`: the parent of one is the one before it. */
  readonly masks: readonly number[];
  readonly parent: Parent | undefined;
  /** What the decoder has learnt in the parent block; undefined for the trunk. */
  readonly statistics: Statistics | undefined;
}

export interface WaveletResult {
  readonly symbols: readonly Symbols[];
  readonly statistics: Statistics;
}

export function runWaveletTask({ stream, blocks, masks, parent, statistics }: WaveletTask): WaveletResult {
  const coder = new MixingDecoder(stream, statistics ?? freshCoefficients());
  let above = parent;
  const symbols = blocks.map((shape, i) => {
    const decoded = decodeSymbols(coder, shape, above);
    above = { shape, symbols: decoded, first: [0, 0, 0], mask: masks[i]! };
    return decoded;
  });
  return { symbols, statistics: coder.learnt() };
}
