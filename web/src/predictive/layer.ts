import { type Box, copyBox, Grid, sidesOf, type Triple, volumeOf } from '../box.js';
import type { Cursor } from '../cursor.js';
import { forEachLimited, type Means } from '../pool.js';
import type { Part } from '../source.js';
import { parseStreams, type Streams } from '../streams.js';

const MOST_BLOCK = 2 ** 21;

export interface NumbersHead {
  readonly largest: number;
  readonly grid: Grid;
  readonly streams: Streams;
}

/** What predicted voxels and corrections have in common: numbers in blocks that decode alone. */
export function parseNumbersHead(cursor: Cursor, shape: Triple, most: number, size: number): NumbersHead {
  const largest = cursor.varint(most, 'the largest number', 1);
  const sides = shape.map((n) => cursor.varint(n, 'the side of a block', 1)) as unknown as Triple;
  if (volumeOf(sides) > MOST_BLOCK) cursor.fail(`expected blocks of at most ${MOST_BLOCK} voxels`);
  const grid = new Grid(shape, sides);
  return { largest, grid, streams: parseStreams(cursor, grid.length, size) };
}

export class Numbers {
  constructor(
    private readonly part: Part,
    private readonly head: NumbersHead,
    private readonly corrections: boolean,
    private readonly means: Means,
  ) {}

  async region(box: Box, signal?: AbortSignal): Promise<Float64Array> {
    const filled = new Float64Array(volumeOf(sidesOf(box)));
    const { grid, streams, largest } = this.head;
    const decode = async (index: number): Promise<Float64Array> => {
      const stream = await this.part.read(streams.starts[index]!, streams.stops[index]!);
      return this.means.pool.run({ kind: 'numbers', stream, sides: sidesOf(grid.box(index)), largest, corrections: this.corrections });
    };
    const place = async (index: number): Promise<void> => {
      const numbers = await this.means.cache.get(`${this.means.name} ${index}`, () => decode(index), (made) => made.byteLength);
      copyBox(numbers, grid.box(index), filled, box);
    };
    await forEachLimited(grid.meeting(box), 2 * this.means.pool.width, place, signal);
    return filled;
  }
}
