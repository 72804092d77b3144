/** What is wrong with a file: `code` names the rule of docs/format.md that it breaks, `message` says it in words. */
export class FormatError extends Error {
  override readonly name = 'FormatError';

  constructor(
    readonly code: FormatCode,
    message: string,
  ) {
    super(message);
  }
}

export type FormatCode =
  | 'magic'
  | 'version'
  | 'truncated'
  | 'trailing'
  | 'header'
  | 'checksum'
  | 'varint'
  | 'dtype'
  | 'axes'
  | 'shape'
  | 'range'
  | 'levels'
  | 'model'
  | 'plan'
  | 'metadata'
  | 'table'
  | 'quality'
  | 'deflate'
  | 'wavelets'
  | 'directions'
  | 'restoration'
  | 'postfilter'
  | 'mask'
  | 'exact'
  | 'predicted'
  | 'corrections';

/** What this decoder does not do, of a file that is sound: networks are not evaluated here. */
export class UnsupportedError extends Error {
  override readonly name = 'UnsupportedError';
}

/** A question that the volume has no answer to, such as a region beyond its end. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
}
