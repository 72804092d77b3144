import type { ArrayDescription } from './array.js';
import type { Box, Described, Scale, Triple } from '../index.js';

/** A file of the page: embedded bytes, or an address that answers range requests; or the address of a folder with an array. */
export type FileSource = { readonly bytes: Uint8Array } | { readonly url: string; readonly array?: ArrayDescription | undefined };

/** What a plane, or a projection, is asked of. */
export interface Wanted {
  readonly file: number;
  readonly item: number;
  /** The axis across the plane, and where on it; undefined for a maximum over it. */
  readonly axis: number;
  readonly index: number | undefined;
  /** Scale to end with, and the part that is in view there; coarser ones come first. */
  readonly scale: number;
  readonly box: Box;
}

export type Request =
  | { readonly kind: 'open'; readonly files: readonly FileSource[] }
  | { readonly kind: 'picture'; readonly key: string; readonly wanted: Wanted }
  | { readonly kind: 'histogram' | 'scales'; readonly file: number; readonly item: number };

export interface OpenFile {
  readonly frame: Described;
  readonly decodable: boolean;
  readonly quality: readonly (Uint8Array | undefined)[];
}

export interface Picture {
  readonly scale: number;
  readonly halvings: Triple;
  readonly means: boolean;
  /** The samples' place at that scale; one thick across the plane. */
  readonly box: Box;
  readonly samples: Float32Array;
  /** Whether nothing better is to come. */
  readonly last: boolean;
  /** How much of the plane is decoded, where it is shown piece by piece; the other samples are NaN. */
  readonly share?: number;
}

export type Answer =
  | { readonly kind: 'opened'; readonly file: number; readonly opened: OpenFile }
  | { readonly kind: 'picture'; readonly key: string; readonly wanted: Wanted; readonly picture: Picture }
  | { readonly kind: 'scales'; readonly file: number; readonly item: number; readonly scales: readonly Scale[] }
  | { readonly kind: 'histogram'; readonly file: number; readonly item: number; readonly samples: Float32Array }
  | { readonly kind: 'failed'; readonly file: number; readonly key: string | undefined; readonly message: string };
