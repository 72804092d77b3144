// The body of a worker that decodes blocks: new WorkerPool([new Worker(new URL('tinc-decoder/worker', import.meta.url), { type: 'module' })]).
import { type Endpoint, serveTasks } from './workers.js';

serveTasks(globalThis as unknown as Endpoint);
