// The page's side of the workers: one that holds the files, the others decode blocks for it.
import type { Scale } from '../index.js';
import type { Answer, FileSource, Picture, Request, Wanted } from './protocol.js';

/** More workers than this would only hold more memory: a plane has few blocks. */
const MOST_WORKERS = 8;

export interface Listener {
  opened(file: number, opened: Extract<Answer, { kind: 'opened' }>['opened']): void;
  picture(key: string, wanted: Wanted, picture: Picture): void;
  scales(file: number, item: number, scales: readonly Scale[]): void;
  histogram(file: number, item: number, samples: Float32Array): void;
  failed(file: number, key: string | undefined, message: string): void;
}

export class Decoder {
  private readonly reader: Worker;

  constructor(code: string, private readonly listener: Listener) {
    const address = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
    const count = Math.min(MOST_WORKERS, Math.max(1, navigator.hardwareConcurrency || 2));
    const blocks = Array.from({ length: count }, () => {
      const { port1, port2 } = new MessageChannel();
      new Worker(address).postMessage({ serve: port1 }, [port1]);
      return port2;
    });
    this.reader = new Worker(address);
    this.reader.onmessage = ({ data }: MessageEvent<Answer>) => this.take(data);
    this.reader.postMessage({ blocks }, blocks);
  }

  ask(request: Request, transfer: Transferable[] = []): void {
    this.reader.postMessage(request, transfer);
  }

  open(files: readonly FileSource[]): void {
    this.ask({ kind: 'open', files }, files.flatMap((file) => ('bytes' in file ? [file.bytes.buffer as ArrayBuffer] : [])));
  }

  private take(answer: Answer): void {
    const { listener } = this;
    if (answer.kind === 'opened') listener.opened(answer.file, answer.opened);
    else if (answer.kind === 'picture') listener.picture(answer.key, answer.wanted, answer.picture);
    else if (answer.kind === 'scales') listener.scales(answer.file, answer.item, answer.scales);
    else if (answer.kind === 'histogram') listener.histogram(answer.file, answer.item, answer.samples);
    else listener.failed(answer.file, answer.key, answer.message);
  }
}
