import type { Task, TaskResult } from './tasks.js';

/** Runs the decoding of blocks: here and now, or in workers. */
export interface Pool {
  /** How many tasks run at the same time. */
  readonly width: number;
  run<T extends Task>(task: T): Promise<TaskResult<T>>;
}

/** Run something for every entry, a few at a time, and stop between two when nobody wants it any more. */
export async function forEachLimited<T>(
  entries: readonly T[], limit: number, work: (entry: T) => Promise<void>, signal: AbortSignal | undefined,
): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < entries.length) {
      signal?.throwIfAborted();
      await work(entries[next++]!);
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, entries.length) }, lane));
}

/** Values that cost time to make, as many as fit in a number of bytes; those used last stay. */
export class Cache {
  private readonly entries = new Map<string, { value: Promise<unknown>; size: number }>();
  private size = 0;

  constructor(private readonly limit: number) {}

  has(key: string): boolean {
    return this.entries.has(key);
  }

  /** The value of a key, of one type for all keys that begin alike; made if it is not there. */
  get<T>(key: string, make: () => Promise<T>, sizeOf: (value: T) => number): Promise<T> {
    const found = this.entries.get(key);
    if (found) {
      this.entries.delete(key);
      this.entries.set(key, found);
      return found.value as Promise<T>;
    }
    const value = make();
    const entry = { value, size: 0 };
    this.entries.set(key, entry);
    value.then(
      (made) => {
        if (this.entries.get(key) !== entry) return;
        entry.size = sizeOf(made);
        this.size += entry.size;
        this.evict(key);
      },
      () => this.entries.delete(key),
    );
    return value;
  }

  private evict(kept: string): void {
    for (const [key, { size }] of this.entries) {
      if (this.size <= this.limit) return;
      if (key === kept || size === 0) continue;
      this.entries.delete(key);
      this.size -= size;
    }
  }
}

/** What layers decode with: who runs their tasks, and where what they made is kept, under names that begin with theirs. */
export interface Means {
  readonly pool: Pool;
  readonly cache: Cache;
  readonly name: string;
}
