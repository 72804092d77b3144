import { type DirectionsResult, type DirectionsTask, runDirectionsTask } from './directional/tile.js';
import { type ExactTask, runExactTask } from './exact.js';
import { type MaskResult, type MaskTask, runMaskTask } from './masks/states.js';
import type { Pool } from './pool.js';
import { type NumbersTask, runNumbersTask } from './predictive/numbers.js';
import { runWaveletTask, type WaveletResult, type WaveletTask } from './wavelets/blocks.js';

/** What takes time: a pure function of its fields, which can be sent to a worker. */
export type Task = WaveletTask | MaskTask | NumbersTask | ExactTask | DirectionsTask;

export type TaskResult<T extends Task> =
  T extends WaveletTask ? WaveletResult
  : T extends MaskTask ? MaskResult
  : T extends NumbersTask ? Float64Array
  : T extends ExactTask ? Uint8Array
  : DirectionsResult;

export function runTask<T extends Task>(task: T): TaskResult<T> {
  const { kind } = task;
  if (kind === 'wavelets') return runWaveletTask(task) as TaskResult<T>;
  if (kind === 'mask') return runMaskTask(task) as TaskResult<T>;
  if (kind === 'numbers') return runNumbersTask(task) as TaskResult<T>;
  if (kind === 'exact') return runExactTask(task) as TaskResult<T>;
  return runDirectionsTask(task) as TaskResult<T>;
}

/** Decodes blocks where it is called, one after another. */
export const inlinePool: Pool = {
  width: 1,
  run: (task) => new Promise((resolve) => resolve(runTask(task))),
};
