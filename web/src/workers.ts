import { FormatError } from './errors.js';
import type { Pool } from './pool.js';
import { runTask, type Task, type TaskResult } from './tasks.js';

/** What a worker and a channel to one have in common. */
export interface Endpoint {
  postMessage(message: unknown, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent) => void) | null;
}

interface Answer {
  readonly result?: TaskResult<Task>;
  readonly error?: { readonly code: FormatError['code'] | undefined; readonly message: string };
}

/** Decode whatever blocks arrive: the body of a worker. */
export function serveTasks(endpoint: Endpoint): void {
  endpoint.onmessage = ({ data }: MessageEvent<Task>) => {
    let answer: Answer;
    try {
      answer = { result: runTask(data) };
    } catch (error) {
      const code = error instanceof FormatError ? error.code : undefined;
      answer = { error: { code, message: error instanceof Error ? error.message : String(error) } };
    }
    endpoint.postMessage(answer, buffersOf(answer.result));
  };
}

/** The arrays of an answer are handed over and not copied. */
function buffersOf(value: unknown): Transferable[] {
  if (ArrayBuffer.isView(value)) return [value.buffer as ArrayBuffer];
  if (typeof value !== 'object' || value === null) return [];
  return [...new Set(Object.values(value).flatMap(buffersOf))];
}

interface Job {
  readonly task: Task;
  readonly resolve: (result: never) => void;
  readonly reject: (reason: Error) => void;
}

/** Decodes blocks in workers, one at a time in each. */
export class WorkerPool implements Pool {
  readonly width: number;
  private readonly idle: Endpoint[] = [];
  private readonly waiting: Job[] = [];

  constructor(workers: readonly Endpoint[]) {
    this.width = workers.length;
    this.idle.push(...workers);
  }

  run<T extends Task>(task: T): Promise<TaskResult<T>> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ task, resolve, reject });
      this.next();
    });
  }

  private next(): void {
    if (!this.idle.length || !this.waiting.length) return;
    const worker = this.idle.pop()!;
    const { task, resolve, reject } = this.waiting.shift()!;
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      this.idle.push(worker);
      if (data.error) reject(data.error.code ? new FormatError(data.error.code, data.error.message) : new Error(data.error.message));
      else resolve(data.result as never);
      this.next();
    };
    // A view is sent with all of the buffer that it is a view of, which may be the whole file: the stream goes alone.
    worker.postMessage({ ...task, stream: task.stream.slice() }, []);
  }
}
