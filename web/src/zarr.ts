// The codec `napari-tinc.frame` (docs/format.md, Zarr chunks) for readers of Zarr 3 in JavaScript, such as zarrita:
// registry.set('napari-tinc.frame', () => TincCodec)
import { RequestError, UnsupportedError } from './errors.js';
import { makeVoxels, Volume, type Voxels } from './volume.js';
import type { Dtype } from './frame.js';

export const NAME = 'napari-tinc.frame';

const VERSION = 1;
const TARGETS = ['step', 'psnr', 'ratio', 'max_error'];
const MOST_ITEMS = 2 ** 16;
const DTYPES: Readonly<Record<string, Dtype>> = {
  uint8: 'u1', int8: 'i1', uint16: 'u2', int16: 'i2', uint32: 'u4', int32: 'i4', uint64: 'u8', int64: 'i8', float32: 'f4', float64: 'f8',
};

/** What a reader of Zarr says of the chunks that it wants decoded. */
export interface ChunkMetadata {
  readonly dataType: string;
  readonly shape: readonly number[];
  readonly fillValue?: unknown;
}

export interface Chunk {
  readonly data: Voxels;
  readonly shape: number[];
  readonly stride: number[];
}

export class TincCodec {
  readonly kind = 'array_to_bytes';
  private readonly dtype: Dtype;
  private readonly axes: string;
  /** The chunk as the frame sees it. */
  private readonly shape: readonly number[];
  private readonly pile: boolean;

  constructor(
    configuration: Readonly<Record<string, unknown>>,
    private readonly chunk: ChunkMetadata,
  ) {
    const { version, axes, ...others } = configuration;
    if (version !== VERSION) throw new RequestError(`${NAME}: expected version ${VERSION}, got ${String(version)}`);
    const [target, ...more] = Object.keys(others);
    if (target === undefined || more.length || !TARGETS.includes(target))
      throw new RequestError(`${NAME}: expected one of ${TARGETS.join(', ')}, got ${Object.keys(others).join(', ') || 'none'}`);
    const dtype = DTYPES[chunk.dataType];
    if (!dtype) throw new UnsupportedError(`${NAME}: arrays of ${chunk.dataType} are not decoded here`);
    this.dtype = dtype;
    const count = chunk.shape.length;
    const named = typeof axes === 'string' ? axes : 'tczyx'.slice(5 - Math.min(count, 5));
    const items = chunk.shape.reduce((product, side, i) => ('tc'.includes(named[i] ?? 'z') ? product * side : product), 1);
    this.pile = count > 5 || items > MOST_ITEMS;
    if (this.pile) this.shape = [chunk.shape.slice(0, -1).reduce((product, side) => product * side, 1), chunk.shape.at(-1)!];
    else this.shape = [...Array<number>(Math.max(0, 2 - count)).fill(1), ...chunk.shape];
    this.axes = this.pile || count < 2 ? 'yx' : named;
  }

  static fromConfig(configuration: unknown, chunk: ChunkMetadata): TincCodec {
    return new TincCodec(configuration as Record<string, unknown>, chunk);
  }

  encode(): never {
    throw new UnsupportedError(`${NAME}: chunks are encoded by napari-tinc in Python`);
  }

  async decode(bytes: Uint8Array): Promise<Chunk> {
    const volume = await Volume.open(bytes);
    const { frame } = volume;
    const fits = frame.shape.every((side, i) => side <= this.shape[i]! && (!this.pile || side === this.shape[i]));
    if (frame.dtype !== this.dtype || frame.axes !== this.axes || !fits) {
      const expected = `${this.dtype} ${this.axes} ${this.shape.join(' × ')}`;
      throw new RequestError(`${NAME}: expected a chunk of ${expected}, got ${frame.dtype} ${frame.axes} ${frame.shape.join(' × ')}`);
    }
    const { shape } = this.chunk;
    const stride = shape.map((_, i) => shape.slice(i + 1).reduce((product, side) => product * side, 1));
    const whole = await volume.array();
    const data = frame.shape.every((side, i) => side === this.shape[i]) ? whole : this.padded(whole, frame.shape);
    return { data, shape: [...shape], stride };
  }

  /** What is beyond the end of a frame is the array's fill value. */
  private padded(part: Voxels, shape: readonly number[]): Voxels {
    const data = makeVoxels(this.dtype, this.shape.reduce((product, side) => product * side, 1));
    const fill = this.chunk.fillValue ?? 0;
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data.fill(BigInt(fill as number));
    else data.fill(Number(fill));
    const width = shape.at(-1)!;
    const place = shape.map(() => 0);
    for (let from = 0; from < part.length; from += width) {
      const at = place.reduce((sum, index, axis) => sum * this.shape[axis]! + index, 0);
      data.set(part.subarray(from, from + width) as never, at);
      for (let axis = shape.length - 2; axis >= 0 && ++place[axis]! === shape[axis]; axis--) place[axis] = 0;
    }
    return data;
  }
}
