// What browser.test.ts runs in a page: golden files, decoded in workers.
import workerCode from 'tinc:worker';
import { Volume, WorkerPool } from '../src/index.js';

const address = URL.createObjectURL(new Blob([workerCode], { type: 'text/javascript' }));

function startWorker(): MessagePort {
  const { port1, port2 } = new MessageChannel();
  new Worker(address).postMessage({ serve: port1 }, [port1]);
  return port2;
}

const pool = new WorkerPool([startWorker(), startWorker()]);

async function decode(base64: string): Promise<{ error: string } | { items: (number | string)[][] }> {
  try {
    const volume = await Volume.open(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)), pool);
    const items: (number | string)[][] = [];
    for (let item = 0; item < volume.frame.items.length; item++) {
      const voxels = await volume.voxels(item);
      items.push(Array.from(voxels as ArrayLike<number | bigint>, (value) => (Number.isFinite(Number(value)) && typeof value === 'number' ? value : String(value))));
    }
    return { items };
  } catch (error) {
    return { error: (error as Error).name };
  }
}

Object.assign(globalThis, { decode });
