// An OME-Zarr of napari-tinc on a server: every chunk is a .tinc file, alone or in a shard. What Python has checked of it
// (share/array.py) is in the page; the chunks, which may have changed since, are checked here.
import { decodeBase64 } from '../base64.js';
import { type Box, copyBox, Grid, meet, sidesOf, type Triple, volumeOf } from '../box.js';
import { crc32c } from '../crc32c.js';
import { FormatError, RequestError } from '../errors.js';
import type { Described, Dtype } from '../frame.js';
import { parseMetadata } from '../metadata.js';
import { Cache, forEachLimited, type Pool } from '../pool.js';
import { HttpSource, Slice, type Source } from '../source.js';
import { CACHE_BYTES, type Scale, Volume } from '../volume.js';

/** What Python writes of an array. Numbers of chunks and sides are in the order of the axes. */
export interface ArrayDescription {
  readonly axes: string;
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly items: readonly (readonly [number, number])[];
  readonly decodable: boolean;
  readonly model: number;
  readonly bytes: number;
  /** As in a file's header, in base64. */
  readonly metadata: string;
  /** Per item as in a quality segment, in base64. */
  readonly quality: readonly string[];
  /** The finest first. */
  readonly levels: readonly LevelDescription[];
}

interface LevelDescription {
  readonly path: string;
  readonly shape: readonly number[];
  readonly halvings: readonly number[];
  readonly chunk: readonly number[];
  /** Chunks of a shard; undefined where every chunk is a file. */
  readonly inside?: readonly number[];
  /** A bit per chunk, set where there is nothing but zeros and so no bytes; in base64. */
  readonly empty: string;
}

/** Chunks that are decoded at the same time. */
const LANES = 8;
/** Bytes of chunks and of shards' tables that are kept. */
const OPEN_BYTES = 2 ** 26;
/** What is decoded at once: a plane that is 8192 voxels wide and high. */
const MOST_SAMPLES = 2 ** 26;

/** One resolution, with three axes. */
class Level {
  readonly shape: Triple;
  readonly halvings: Triple;
  readonly grid: Grid;
  private readonly empty: Uint8Array;

  constructor(
    readonly said: LevelDescription,
    private readonly axes: string,
  ) {
    this.shape = this.spatial(said.shape, 1);
    this.halvings = this.spatial(said.halvings, 0);
    this.grid = new Grid(this.shape, this.spatial(said.chunk, 1));
    this.empty = decodeBase64(said.empty);
  }

  private spatial(sides: readonly number[], missing: number): Triple {
    const found = sides.filter((_, i) => !'tc'.includes(this.axes[i]!));
    return [...Array<number>(3 - found.length).fill(missing), ...found] as unknown as Triple;
  }

  /** The position of a chunk, of which the item and the number within it are given, along all axes. */
  cell(item: number, number: number): number[] {
    const { shape, chunk } = this.said;
    const cell = shape.map(() => 0);
    for (let i = shape.length - 1; i >= 0; i--) {
      const count = Math.ceil(shape[i]! / chunk[i]!);
      if ('tc'.includes(this.axes[i]!)) {
        cell[i] = item % count;
        item = Math.floor(item / count);
      } else {
        cell[i] = number % count;
        number = Math.floor(number / count);
      }
    }
    return cell;
  }

  isEmpty(cell: readonly number[]): boolean {
    const { shape, chunk } = this.said;
    const number = cell.reduce((sum, at, i) => sum * Math.ceil(shape[i]! / chunk[i]!) + at, 0);
    return ((this.empty[number >> 3]! >> (number & 7)) & 1) === 1;
  }
}

/** An array as viewers see it: like a `Volume`, with the levels for scales. */
export class CompressedArray {
  readonly frame: Described;
  readonly decodable: boolean;
  private readonly levels: readonly Level[];
  private readonly blocks = new Cache(CACHE_BYTES);
  private readonly opened = new Cache(OPEN_BYTES);

  /** The address is that of the folder, with a slash at its end. */
  constructor(
    private readonly address: string,
    private readonly said: ArrayDescription,
    private readonly pool: Pool,
    private readonly fetcher?: typeof fetch,
  ) {
    const { axes, shape, dtype, model } = said;
    const spatial = (sides: readonly number[]): number[] => sides.filter((_, i) => !'tc'.includes(axes[i]!));
    const chunk = spatial(said.levels[0]!.chunk);
    const spatialShape = spatial(shape);
    const channels = axes.includes('c') ? shape[axes.indexOf('c')]! : 1;
    this.frame = {
      dtype, axes, shape, spatialShape, chunk, model,
      spatialAxes: axes.replace(/[tc]/g, ''),
      items: said.items.map(([minimum, maximum]) => ({ minimum, maximum })),
      splits: [],
      leaves: spatialShape.reduce((product, side, axis) => product * Math.ceil(side / chunk[axis]!), 1),
      metadata: parseMetadata(decodeBase64(said.metadata), axes.length, channels),
      size: said.bytes,
    };
    this.decodable = said.decodable;
    this.levels = said.levels.map((level) => new Level(level, axes));
  }

  qualityBytes(item: number): Promise<Uint8Array> {
    return Promise.resolve(decodeBase64(this.said.quality[item]!));
  }

  scales(): Promise<readonly Scale[]> {
    return Promise.resolve(this.levels.map(({ shape, halvings }, i) => ({ shape, halvings, means: i > 0 })));
  }

  async samples(item: number, scale: number, box: Box, signal?: AbortSignal): Promise<Float32Array> {
    const level = this.levels[scale]!;
    const size = volumeOf(sidesOf(box));
    if (size > MOST_SAMPLES) throw new RequestError('this is more than a page decodes at once; zoom in');
    const samples = new Float32Array(size);
    await forEachLimited(level.grid.meeting(box), LANES, async (number) => {
      const cell = level.cell(item, number);
      if (level.isEmpty(cell)) return;
      const volume = await this.chunk(level, cell);
      const whole = level.grid.box(number);
      const [z, y, x] = [whole[0], whole[2], whole[4]];
      // What is beyond the end of a chunk's file are zeros.
      const there: Box = [z, z + volume.shape[0], y, y + volume.shape[1], x, x + volume.shape[2]];
      const part = meet(box, there);
      if (!part) return;
      const local: Box = [part[0] - z, part[1] - z, part[2] - y, part[3] - y, part[4] - x, part[5] - x];
      copyBox(await volume.samples(0, 0, local, signal), part, samples, box);
    }, signal);
    return samples;
  }

  private fileAt(address: string): HttpSource {
    return new HttpSource(address, this.fetcher);
  }

  private async chunk(level: Level, cell: readonly number[]): Promise<Volume> {
    const { path, chunk, inside } = level.said;
    const name = `${path}/c/${cell.join('/')}`;
    const open = async (): Promise<{ volume: Volume; file: HttpSource }> => {
      const file = inside ? undefined : this.fileAt(this.address + name);
      const found = file ? { source: file, file } : await this.inShard(level, cell, name);
      const volume = await Volume.open(found.source, this.pool, { cache: this.blocks, name: `${name} ` });
      const { dtype, axes, shape } = volume.frame;
      if (dtype !== this.said.dtype || axes !== this.said.axes || shape.some((side, i) => side > chunk[i]!))
        throw new FormatError('shape', `expected a chunk of the array at ${name}, got another one: ${dtype} ${axes} ${shape.join(' × ')}`);
      return { volume, file: found.file };
    };
    return (await this.opened.get(`chunk ${name}`, open, ({ volume, file }) => volume.frame.size + file.held)).volume;
  }

  private async inShard({ said }: Level, cell: readonly number[], name: string): Promise<{ source: Source; file: HttpSource }> {
    const inside = said.inside!;
    const address = `${this.address}${said.path}/c/${cell.map((at, i) => Math.floor(at / inside[i]!)).join('/')}`;
    const open = (): Promise<Shard> => openShard(this.fileAt(address), inside, address);
    const { file, table } = await this.opened.get(`shard ${address}`, open, (shard) => shard.table.byteLength + shard.file.held);
    const at = 16 * cell.reduce((sum, place, i) => sum * inside[i]! + (place % inside[i]!), 0);
    const [offset, length] = [table.getBigUint64(at, true), table.getBigUint64(at + 8, true)];
    if (offset + length > BigInt(file.size!)) throw new FormatError('table', `expected the chunk ${name} in its shard, got none`);
    return { source: new Slice(file, Number(offset), Number(length)), file };
  }
}

interface Shard {
  readonly file: HttpSource;
  /** Where its chunks are: two numbers for each. */
  readonly table: DataView;
}

async function openShard(file: HttpSource, inside: readonly number[], address: string): Promise<Shard> {
  const size = 16 * inside.reduce((product, count) => product * count, 1);
  const bytes = await file.readLast(size + 4);
  if (bytes.length !== size + 4) throw new FormatError('truncated', `the shard ${address} is cut off`);
  const table = new DataView(bytes.slice().buffer);
  if (table.getUint32(size, true) !== crc32c(bytes.subarray(0, size))) throw new FormatError('checksum', `the table of the shard ${address} is damaged`);
  return { file, table };
}
