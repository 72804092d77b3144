// The worker that holds the files of the page. It decides what is decoded and in which order; blocks are decoded by the
// workers that it is given channels to.
import { type Box, BytesSource, HttpSource, type Pool, type Scale, serveTasks, Volume, WorkerPool } from '../index.js';
import { CompressedArray } from './array.js';
import { RequestError } from '../errors.js';
import { copyBox, Grid, sidesOf, volumeOf, wholeBox } from '../box.js';
import { forEachLimited } from '../pool.js';
import type { Answer, FileSource, OpenFile, Request, Wanted } from './protocol.js';

/** Samples of a plane that are decoded at once for the first look, and of a projection. */
const QUICK_PLANE = 2 ** 12;
/** After so long a coarse plane is better than the last one. */
const PATIENCE_MS = 150;
/** The sides of what is decoded and shown at a time of files without coarse scales. */
const PIECE = 128;
/** A coarse plane of more than this is no quick look: of an array that has few levels. */
const MOST_COARSE = 2 ** 22;
const QUICK_PROJECTION = 2 ** 18;
const SHARP_PROJECTION = 2 ** 25;
const HISTOGRAM = 2 ** 16;
const HISTOGRAM_SIDE = 512;
/** Planes of a projection that are decoded between two looks at what else is wanted. */
const SLAB = 32;

declare const self: { onmessage: ((event: MessageEvent) => void) | null; postMessage(message: unknown, transfer?: Transferable[]): void };

/** The first message says what this worker is for: to decode blocks for the one that holds the files, or to hold them. */
self.onmessage = ({ data }: MessageEvent<{ serve?: MessagePort; blocks?: MessagePort[] }>) => {
  self.onmessage = null;
  if (data.serve) serveTasks(data.serve);
  else new Reader(new WorkerPool(data.blocks!));
};

class Reader {
  private volumes: (Volume | CompressedArray)[] = [];
  /** Files on a server: a sharp projection would fetch all of them. */
  private readonly remote = new Set<number>();
  private readonly running = new Map<string, AbortController>();
  /** Planes that are being decoded: projections wait for them. */
  private busy = 0;
  /** Views that show something: they are not made coarse for the moment that a sharp plane takes. */
  private readonly shown = new Set<string>();
  private turn: Promise<void> = Promise.resolve();

  constructor(private readonly pool: Pool) {
    self.onmessage = ({ data }: MessageEvent<Request>) => this.answer(data);
  }

  private answer(request: Request): void {
    if (request.kind === 'open') request.files.forEach((file, i) => void this.guard(i, undefined, () => this.open(i, file)));
    else if (request.kind === 'picture') this.picture(request.key, request.wanted);
    else if (request.kind === 'histogram') void this.guard(request.file, undefined, () => this.histogram(request.file, request.item));
    else void this.guard(request.file, undefined, () => this.scales(request.file, request.item));
  }

  private post(answer: Answer, transfer: Transferable[] = []): void {
    self.postMessage(answer, transfer);
  }

  private async guard(file: number, key: string | undefined, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') return;
      this.post({ kind: 'failed', file, key, message: error instanceof Error ? error.message : String(error) });
    }
  }

  private async open(file: number, source: FileSource): Promise<void> {
    if ('url' in source) this.remote.add(file);
    const volume = await this.openSource(source);
    this.volumes[file] = volume;
    const items = volume.frame.items.map((_, item) => item);
    const quality = await Promise.all(items.map((item) => volume.qualityBytes(item)));
    const opened: OpenFile = { frame: volume.frame, decodable: volume.decodable, quality: quality.map((bytes) => bytes?.slice()) };
    this.post({ kind: 'opened', file, opened });
  }

  private openSource(source: FileSource): Promise<Volume> | CompressedArray {
    if ('bytes' in source) return Volume.open(new BytesSource(source.bytes), this.pool);
    if (source.array) return new CompressedArray(source.url, source.array, this.pool);
    return Volume.open(new HttpSource(source.url), this.pool);
  }

  private async scales(file: number, item: number): Promise<void> {
    this.post({ kind: 'scales', file, item, scales: await this.volumes[file]!.scales(item) });
  }

  private picture(key: string, wanted: Wanted): void {
    this.running.get(key)?.abort();
    const controller = new AbortController();
    this.running.set(key, controller);
    const work = wanted.index === undefined ? this.projection(key, wanted, controller.signal) : this.plane(key, wanted, controller.signal);
    void this.guard(wanted.file, key, () => work);
  }

  private async plane(key: string, wanted: Wanted, signal: AbortSignal): Promise<void> {
    this.busy++;
    try {
      const volume = this.volumes[wanted.file]!;
      const scales = await volume.scales(wanted.item);
      if (scales[0]!.means) return await this.inTurn(() => this.pieces(key, wanted, signal));
      const planeSize = (scale: number): number => volumeOf(scales[scale]!.shape) / scales[scale]!.shape[wanted.axis]!;
      let quick = scales.findIndex((_, scale) => planeSize(scale) <= QUICK_PLANE);
      if (quick < 0) quick = scales.length - 1;
      if (planeSize(quick) > MOST_COARSE) quick = wanted.scale;
      const coarse = (): Promise<void> => this.sendPlane(key, wanted, quick, across(wholeBox(scales[quick]!.shape), wanted, scales[quick]!), signal);
      const isFirst = !this.shown.has(key);
      this.shown.add(key);
      if (isFirst && quick > wanted.scale) await coarse();
      let done = false;
      const sharp = this.inTurn(() => this.sendPlane(key, wanted, wanted.scale, wanted.box, signal)).finally(() => (done = true));
      sharp.catch(() => undefined); // it is awaited below, unless the coarse one is not wanted any more
      if (!isFirst && quick > wanted.scale) {
        await Promise.race([sharp, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
        if (!done) await coarse();
      }
      await sharp;
    } finally {
      this.busy--;
    }
  }

  /** One sharp plane after another: the first is there sooner than if all were decoded at once. */
  private inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.turn.then(work);
    this.turn = done.catch(() => undefined);
    return done;
  }

  /** Of a file without coarse scales a plane is shown as far as it is decoded. */
  private async pieces(key: string, wanted: Wanted, signal: AbortSignal): Promise<void> {
    const { item, scale, box } = wanted;
    const volume = this.volumes[wanted.file]!;
    const { halvings, means } = (await volume.scales(item))[scale]!;
    const samples = new Float32Array(volumeOf(sidesOf(box))).fill(NaN);
    const grid = new Grid(sidesOf(box), [PIECE, PIECE, PIECE]);
    let done = 0;
    let sent = performance.now();
    const decode = async (number: number): Promise<void> => {
      const place = grid.box(number).map((at, i) => at + box[i & ~1]!) as unknown as Box;
      copyBox(await volume.samples(item, scale, place, signal), place, samples, box);
      if (++done === grid.length || performance.now() - sent < PATIENCE_MS) return;
      sent = performance.now();
      const picture = { scale, halvings, means, box, samples: samples.slice(), last: false, share: done / grid.length };
      this.post({ kind: 'picture', key, wanted, picture }, [picture.samples.buffer]);
    };
    await forEachLimited(grid.meeting(wholeBox(grid.shape)), 2 * this.pool.width, decode, signal);
    signal.throwIfAborted();
    this.post({ kind: 'picture', key, wanted, picture: { scale, halvings, means, box, samples, last: true } }, [samples.buffer]);
  }

  private async sendPlane(key: string, wanted: Wanted, scale: number, box: Box, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { halvings, means } = (await this.volumes[wanted.file]!.scales(wanted.item))[scale]!;
    const samples = await this.volumes[wanted.file]!.samples(wanted.item, scale, box, signal);
    signal.throwIfAborted();
    const sent = samples.byteLength === samples.buffer.byteLength ? samples : samples.slice();
    this.post({ kind: 'picture', key, wanted, picture: { scale, halvings, means, box, samples: sent, last: scale === wanted.scale } }, [sent.buffer]);
  }

  /** A maximum: quickly of a coarse volume, then of the finest one that a machine can be asked to decode, or fetch, whole. */
  private async projection(key: string, wanted: Wanted, signal: AbortSignal): Promise<void> {
    const scales = await this.volumes[wanted.file]!.scales(wanted.item);
    const fit = (most: number): number => {
      const found = scales.findIndex((scale) => volumeOf(scale.shape) <= most);
      return found < 0 ? scales.length - 1 : found;
    };
    const sharp = Math.max(wanted.scale, fit(this.remote.has(wanted.file) ? QUICK_PROJECTION : SHARP_PROJECTION));
    // Means of voxels need all of them.
    const needed = volumeOf(scales[scales[0]!.means ? 0 : sharp]!.shape);
    if (this.remote.has(wanted.file) && needed > SHARP_PROJECTION)
      throw new RequestError('there is no projection, for it would fetch too much: there are no coarse scales, or the coarsest is large');
    // There is no quick look at them: a maximum is shown as far as it is known.
    for (const scale of scales[0]!.means ? [sharp] : [...new Set([Math.max(sharp, fit(QUICK_PROJECTION)), sharp])])
      await this.sendProjection(key, wanted, scale, scales[scale]!, scale === sharp, signal);
  }

  private async sendProjection(key: string, wanted: Wanted, scale: number, { shape, halvings, means }: Scale, last: boolean, signal: AbortSignal): Promise<void> {
    const { axis } = wanted;
    const box = wholeBox(shape).slice() as unknown as [number, number, number, number, number, number];
    box[2 * axis + 1] = 1;
    const highest = new Float32Array(volumeOf(sidesOf(box))).fill(-Infinity);
    let sent = performance.now();
    for (let start = 0; start < shape[axis]!; start += SLAB) {
      while (this.busy) await new Promise((resolve) => setTimeout(resolve, 30));
      signal.throwIfAborted();
      const slab = wholeBox(shape).slice() as unknown as [number, number, number, number, number, number];
      slab[2 * axis] = start;
      slab[2 * axis + 1] = Math.min(shape[axis]!, start + SLAB);
      if (means && start && performance.now() - sent > PATIENCE_MS) {
        sent = performance.now();
        const picture = { scale, halvings, means, box, samples: highest.slice(), last: false, share: start / shape[axis]! };
        this.post({ kind: 'picture', key, wanted, picture }, [picture.samples.buffer]);
      }
      takeHighest(await this.volumes[wanted.file]!.samples(wanted.item, scale, slab, signal), sidesOf(slab), axis, highest);
    }
    signal.throwIfAborted();
    this.post({ kind: 'picture', key, wanted, picture: { scale, halvings, means, box, samples: highest, last } }, [highest.buffer]);
  }

  private async histogram(file: number, item: number): Promise<void> {
    const volume = this.volumes[file]!;
    const scales = await volume.scales(item);
    let scale = scales[0]!.means ? 0 : scales.findIndex(({ shape }) => volumeOf(shape) <= HISTOGRAM);
    if (scale < 0) scale = scales.length - 1;
    const { shape } = scales[scale]!;
    const box = wholeBox(shape).slice() as unknown as [number, number, number, number, number, number];
    // Of a volume without a scale that is so coarse, the middle has to do.
    const most = volumeOf(shape) <= HISTOGRAM ? shape : [1, HISTOGRAM_SIDE, HISTOGRAM_SIDE];
    shape.forEach((side, axis) => {
      const kept = Math.min(side, most[axis]!);
      box[2 * axis] = (side - kept) >> 1;
      box[2 * axis + 1] = box[2 * axis]! + kept;
    });
    const samples = (await volume.samples(item, scale, box)).slice();
    this.post({ kind: 'histogram', file, item, samples }, [samples.buffer]);
  }
}

/** The plane of a box that a wanted one lies in, at a coarser scale. */
function across(box: Box, { axis, index }: Wanted, { shape, halvings }: Scale): Box {
  const at = Math.min(shape[axis]! - 1, index! >> halvings[axis]!);
  const plane = box.slice() as unknown as [number, number, number, number, number, number];
  plane[2 * axis] = at;
  plane[2 * axis + 1] = at + 1;
  return plane;
}

function takeHighest(samples: Float32Array, [n0, n1, n2]: readonly [number, number, number], axis: number, highest: Float32Array): void {
  const steps = ([[0, n2, 1], [n2, 0, 1], [n1, 1, 0]] as const)[axis]!;
  for (let z = 0, i = 0; z < n0; z++)
    for (let y = 0; y < n1; y++) {
      let at = z * steps[0] + y * steps[1];
      for (let x = 0; x < n2; x++, i++, at += steps[2]) if (samples[i]! > highest[at]!) highest[at] = samples[i]!;
    }
}
