import { type Box, copyBox, Grid, grown, sidesOf, type Triple, volumeOf } from '../box.js';
import type { Cursor } from '../cursor.js';
import { type Dtype, type Item, readValue } from '../frame.js';
import { forEachLimited, type Means } from '../pool.js';
import type { Part } from '../source.js';
import { parseStreams, type Streams } from '../streams.js';
import type { Statistics } from '../mixing.js';
import { type MaskResult, MIXED, type StatesShape } from './states.js';

const MOST_CHILDREN = 2 ** 21;
/** Bytes of the statistics of a block. */
const STATISTICS = 17000;

interface Octave {
  /** Cells that it divides, and what they are divided into. */
  readonly parents: Triple;
  readonly children: Triple;
  readonly joined: Triple;
  readonly grid: Grid;
  readonly first: number;
}

interface Head {
  readonly background: number;
  readonly octaves: readonly Octave[];
  readonly trunk: number;
  readonly streams: Streams;
}

interface Decoded {
  readonly states: Uint8Array;
  readonly statistics: Statistics;
}

/** Which voxels of an item are inside of its mask; what is outside has the value of the background. */
export class Mask {
  readonly background: number;
  readonly octaves: number;
  private trunk: Promise<MaskResult> | undefined;

  private constructor(
    private readonly part: Part,
    private readonly head: Head,
    private readonly means: Means,
  ) {
    this.background = head.background;
    this.octaves = head.octaves.length;
  }

  static async open(part: Part, shape: Triple, dtype: Dtype, item: Item, means: Means): Promise<Mask> {
    const head = await part.parseHead((cursor) => parseHead(cursor, shape, dtype, item, part.length));
    return new Mask(part, head, means);
  }

  /** States of the cells that octave `k` divides into, of those in a box: 0 outside, 1 mixed, 2 inside. */
  async states(k: number, box: Box, signal?: AbortSignal): Promise<Uint8Array> {
    const filled = new Uint8Array(volumeOf(sidesOf(box)));
    if (k === this.head.octaves.length) return filled.fill(MIXED);
    const { grid, joined } = this.head.octaves[k]!;
    const parents = [0, 1, 2].flatMap((axis) => {
      const joint = joined[axis]!;
      return [box[2 * axis]! >> joint, ((box[2 * axis + 1]! - 1) >> joint) + 1];
    }) as unknown as Box;
    const place = async (index: number): Promise<void> => {
      const { states } = await this.block(k, index, signal);
      copyBox(states, this.childrenBox(k, index), filled, box);
    };
    await forEachLimited(grid.meeting(parents), 2 * this.means.pool.width, place, signal);
    return filled;
  }

  private childrenBox(k: number, index: number): Box {
    const { grid, joined, children } = this.head.octaves[k]!;
    const parents = grid.box(index);
    return [0, 1, 2].flatMap((axis) => [
      parents[2 * axis]! << joined[axis]!,
      Math.min(parents[2 * axis + 1]! << joined[axis]!, children[axis]!),
    ]) as unknown as Box;
  }

  private shapeOf(k: number, index: number): StatesShape {
    const { grid, joined } = this.head.octaves[k]!;
    return { parents: sidesOf(grid.box(index)), children: sidesOf(this.childrenBox(k, index)), joined, finest: k === 0 };
  }

  private block(k: number, index: number, signal: AbortSignal | undefined): Promise<Decoded> {
    const sizeOf = ({ states }: Decoded): number => states.length + STATISTICS;
    return this.means.cache.get(`${this.means.name} ${k} ${index}`, () => this.decodeBlock(k, index, signal), sizeOf);
  }

  private async decodeBlock(k: number, index: number, signal: AbortSignal | undefined): Promise<Decoded> {
    const { octaves, trunk, streams } = this.head;
    if (k >= trunk) {
      const { states, statistics } = await this.decodedTrunk();
      return { states: states[octaves.length - 1 - k]!, statistics };
    }
    const { grid, parents, first } = octaves[k]!;
    const box = grid.box(index);
    const wide = grown(box, 1, parents);
    const coarser = octaves[k + 1]!;
    const corner = [0, 1, 2].map((axis) => box[2 * axis]! >> coarser.joined[axis]!) as unknown as Triple;
    const [stream, known, before] = await Promise.all([
      this.part.read(streams.starts[first + index]!, streams.stops[first + index]!),
      this.states(k + 1, wide, signal),
      this.block(k + 1, coarser.grid.at(...corner), signal),
    ]);
    const margin: Box = [box[0] - 1, box[1] + 1, box[2] - 1, box[3] + 1, box[4] - 1, box[5] + 1];
    const around = new Uint8Array(volumeOf(sidesOf(margin))).fill(MIXED);
    copyBox(known, wide, around, margin);
    const task = { kind: 'mask', stream, blocks: [this.shapeOf(k, index)], around, statistics: before.statistics } as const;
    const { states, statistics } = await this.means.pool.run(task);
    return { states: states[0]!, statistics };
  }

  private decodedTrunk(): Promise<MaskResult> {
    this.trunk ??= this.decodeTrunk();
    return this.trunk;
  }

  private async decodeTrunk(): Promise<MaskResult> {
    const { octaves, trunk, streams } = this.head;
    const stream = await this.part.read(streams.starts[0]!, streams.stops[0]!);
    const blocks = octaves.map((_, k) => k).slice(trunk).reverse().map((k) => this.shapeOf(k, 0));
    return this.means.pool.run({ kind: 'mask', stream, blocks, around: new Uint8Array(27).fill(MIXED), statistics: undefined });
  }
}

function parseHead(cursor: Cursor, shape: Triple, dtype: Dtype, item: Item, size: number): Head {
  const background = readValue(cursor, dtype);
  if (!(background >= item.minimum && background <= item.maximum)) cursor.fail(`expected a background in the item's range, got ${background}`);
  const code = cursor.byte();
  if (code < 1 || code > 9) cursor.fail(`expected a side code from 1 to 9, got ${code}`);
  if (volumeOf(shape) === 1) cursor.fail('expected more than one voxel under a mask');
  const side = 2 ** code;
  const cells: Triple[] = [shape];
  while (volumeOf(cells.at(-1)!) > 1) cells.push(cells.at(-1)!.map((n) => Math.ceil(n / 2)) as unknown as Triple);
  const count = cells.length - 1;
  const grids = cells.slice(1).map((parents) => new Grid(parents, [side, side, side]));
  const joinedOf = (children: Triple): Triple => children.map((n) => (n > 1 ? 1 : 0)) as unknown as Triple;
  grids.forEach((grid, k) => {
    const joined = joinedOf(cells[k]!);
    const children = sidesOf(grid.box(0)).reduce((product, n, axis) => product * Math.min(n << joined[axis]!, cells[k]![axis]!), 1);
    if (children > MOST_CHILDREN) cursor.fail(`expected blocks of at most ${MOST_CHILDREN} cells, got ${children}`);
  });
  let trunk = count;
  while (trunk > 0 && grids[trunk - 1]!.length === 1) trunk--;
  const octaves = new Array<Octave>(count);
  let streams = 1;
  for (let k = count - 1; k >= 0; k--) {
    octaves[k] = { parents: cells[k + 1]!, children: cells[k]!, joined: joinedOf(cells[k]!), grid: grids[k]!, first: k < trunk ? streams : 0 };
    if (k < trunk) streams += grids[k]!.length;
  }
  return { background, octaves, trunk, streams: parseStreams(cursor, streams, size) };
}
