import { type Box, copyBox, Grid, sidesOf, type Triple, volumeOf } from '../box.js';
import type { Cursor } from '../cursor.js';
import { forEachLimited, type Means } from '../pool.js';
import type { Part } from '../source.js';
import { parseStreams, type Streams } from '../streams.js';
import { parseStep } from '../wavelets/layer.js';
import type { DirectionsResult } from './tile.js';

const MOST_VOXELS = 2 ** 26;
const MOST_TILE = 2 ** 22;
/** Bytes of the statistics of a tile. */
const STATISTICS = 175304;

interface Head {
  readonly codes: Triple;
  /** Code of how blocks are predicted and corrected. */
  readonly rules: number;
  readonly step: number;
  readonly offsets: readonly [number, number];
  readonly grid: Grid;
  readonly streams: Streams;
}

/** What the directions of an item say of its regions. */
export class DirectionalLayer {
  private constructor(
    private readonly part: Part,
    private readonly head: Head,
    private readonly means: Means,
  ) {}

  static async open(part: Part, shape: Triple, means: Means): Promise<DirectionalLayer> {
    return new DirectionalLayer(part, await part.parseHead((cursor) => parseHead(cursor, shape, part.length)), means);
  }

  async region(box: Box, signal?: AbortSignal): Promise<Float32Array> {
    const filled = new Float32Array(volumeOf(sidesOf(box)));
    const { grid } = this.head;
    const place = async (index: number): Promise<void> => {
      const { voxels } = await this.tile(index);
      copyBox(voxels, grid.box(index), filled, box);
    };
    await forEachLimited(grid.meeting(box), this.means.pool.width, place, signal);
    return filled;
  }

  private tile(index: number): Promise<DirectionsResult> {
    const sizeOf = ({ voxels }: DirectionsResult): number => voxels.byteLength + STATISTICS;
    return this.means.cache.get(`${this.means.name} ${index}`, () => this.decodeTile(index), sizeOf);
  }

  private async decodeTile(index: number): Promise<DirectionsResult> {
    const { streams, grid, codes, rules, step, offsets } = this.head;
    const first = index ? (await this.tile(0)).statistics : undefined;
    const stream = await this.part.read(streams.starts[index]!, streams.stops[index]!);
    return this.means.pool.run({ kind: 'directions', stream, codes, rules, extent: sidesOf(grid.box(index)), step, offsets, statistics: first });
  }
}

function parseHead(cursor: Cursor, shape: Triple, size: number): Head {
  if (volumeOf(shape) > MOST_VOXELS) cursor.fail('expected an item of at most 2²⁶ voxels');
  const [first, ...others] = cursor.take(3);
  const rules = first! >> 6;
  const codes = [first! & 63, ...others] as unknown as Triple;
  if (Math.max(...codes) > 5 || Math.max(...codes) < 2) cursor.fail(`expected root codes of 0 to 5, one of them 2 or more, got ${codes.join(', ')}`);
  const sides = codes.map((code, a) => cursor.varint(Math.ceil(shape[a]! / 2 ** code), 'a number of root blocks', 1) * 2 ** code) as unknown as Triple;
  if (volumeOf(sides) > MOST_TILE) cursor.fail(`expected tiles of at most ${MOST_TILE} voxels`);
  const step = parseStep(cursor);
  const offsets = [cursor.byte(), cursor.byte()] as const;
  const grid = new Grid(shape, sides);
  return { codes, rules, step, offsets, grid, streams: parseStreams(cursor, grid.length, size) };
}
