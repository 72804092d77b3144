// What browser.test.ts and bench.ts run in a page: golden files, decoded in workers; and how long planes take.
import workerCode from 'tinc:worker';
import { Volume, WorkerPool } from '../src/index.js';

const address = URL.createObjectURL(new Blob([workerCode], { type: 'text/javascript' }));

function startWorker(): MessagePort {
  const { port1, port2 } = new MessageChannel();
  new Worker(address).postMessage({ serve: port1 }, [port1]);
  return port2;
}

const pool = new WorkerPool(Array.from({ length: navigator.hardwareConcurrency }, startWorker));

/** Of every item no more than about so many voxels are told, evenly spread. */
const TOLD = 2000;

async function decode(base64: string): Promise<{ error: string } | { step: number; items: (number | string)[][] }> {
  try {
    const volume = await Volume.open(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)), pool);
    const items: (number | string)[][] = [];
    const step = Math.ceil(volume.shape.reduce((product, side) => product * side, 1) / TOLD);
    for (let item = 0; item < volume.frame.items.length; item++) {
      const voxels = await volume.voxels(item);
      // Infinities, NaN and 64-bit integers have no JSON.
      const told = Array.from({ length: Math.ceil(voxels.length / step) }, (_, i) => voxels[i * step]!);
      items.push(told.map((value) => (Number.isFinite(value) ? (value as number) : String(value))));
    }
    return { step, items };
  } catch (error) {
    return { error: (error as Error).name };
  }
}

/** Milliseconds for a plane whose blocks are not decoded yet, and for one of the same blocks; the compiler is warm. */
async function times(base64: string): Promise<{ workers: number; plane: number[]; next: number[] }> {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const plane: number[] = [], next: number[] = [];
  for (let i = 0; i < 7; i++) {
    const volume = await Volume.open(bytes, pool);
    const [depth, height, width] = volume.shape;
    const z = (depth >> 1) + i;
    for (const [spent, index] of [[plane, z], [next, z + 1]] as const) {
      const began = performance.now();
      await volume.samples(0, 0, [index, index + 1, 0, height, 0, width]);
      spent.push(performance.now() - began);
    }
  }
  return { workers: pool.width, plane: plane.slice(2), next: next.slice(2) };
}

Object.assign(globalThis, { decode, times });
