import { FormatError } from './errors.js';
import { inflate } from './inflate.js';

const MOST_BYTES = 2 ** 16;

/** What viewers may use and nobody has to: each part is missing where the file does not say it. */
export interface Display {
  readonly translate?: readonly number[];
  readonly linear?: readonly (readonly number[])[];
  readonly contrastLimits?: readonly (readonly [number, number])[];
  readonly colors?: readonly string[];
}

export interface Metadata {
  readonly voxelSize: readonly number[];
  readonly units: readonly string[];
  readonly channelNames: readonly string[];
  readonly name: string;
  readonly display: Display;
  readonly provenance: Readonly<Record<string, string | number | boolean>>;
}

function fail(message: string): never {
  throw new FormatError('metadata', message);
}

export function parseMetadata(deflated: Uint8Array, axes: number, channels: number): Metadata {
  const none = { voxelSize: Array(axes).fill(1), units: Array(axes).fill(''), channelNames: [], name: '', display: {}, provenance: {} };
  if (deflated.length === 0) return none;
  const values = parseObject(inflate(deflated, MOST_BYTES));
  const has = (key: string): boolean => Object.hasOwn(values, key);
  const voxelSize = has('voxel_size') ? numbers(values['voxel_size'], axes, 'voxel_size') : none.voxelSize;
  if (voxelSize.some((size) => size <= 0)) fail('expected positive voxel sizes');
  const units = has('units') ? strings(values['units'], axes, 'units') : none.units;
  const names = values['channel_names'];
  const channelNames = !has('channel_names') || (Array.isArray(names) && names.length === 0) ? [] : strings(names, channels, 'channel_names');
  const name = has('name') ? text(values['name'], 'name') : '';
  const display = has('display') ? parseDisplay(record(values['display'], 'display'), axes, channels) : {};
  const provenance = has('provenance') ? record(values['provenance'], 'provenance') : {};
  for (const value of Object.values(provenance))
    if (typeof value === 'string') text(value, 'provenance');
    else if (typeof value !== 'boolean' && !Number.isFinite(value)) fail('expected strings, numbers and booleans as provenance');
  return { voxelSize, units, channelNames, name, display, provenance: provenance as Metadata['provenance'] };
}

function parseObject(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    return fail('expected JSON in UTF-8');
  }
  return record(value, 'metadata');
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) fail(`expected an object as ${what}`);
  return value as Record<string, unknown>;
}

function text(value: unknown, what: string): string {
  if (typeof value !== 'string' || /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(value))
    fail(`expected a string as ${what}`);
  return value;
}

function strings(value: unknown, count: number, what: string): string[] {
  if (!Array.isArray(value) || value.length !== count) fail(`expected ${count} strings as ${what}`);
  return value.map((entry) => text(entry, what));
}

function numbers(value: unknown, count: number, what: string): number[] {
  if (!Array.isArray(value) || value.length !== count || !value.every((entry) => Number.isFinite(entry)))
    fail(`expected ${count} finite numbers as ${what}`);
  return value;
}

function parseDisplay(value: Record<string, unknown>, axes: number, channels: number): Display {
  const display: { -readonly [Key in keyof Display]: Display[Key] } = {};
  if (Object.hasOwn(value, 'translate')) display.translate = numbers(value['translate'], axes, 'translate');
  if (Object.hasOwn(value, 'linear')) {
    const rows = value['linear'];
    if (!Array.isArray(rows) || rows.length !== axes) fail(`expected ${axes} rows as linear`);
    display.linear = rows.map((row) => numbers(row, axes, 'linear'));
  }
  if (Object.hasOwn(value, 'contrast_limits')) {
    const given = value['contrast_limits'];
    const one = Array.isArray(given) && given.length === 2 && given.every((entry) => Number.isFinite(entry));
    if (!one && (!Array.isArray(given) || given.length !== channels)) fail('expected a pair of numbers, or one per channel, as contrast_limits');
    const pairs: unknown[] = one ? Array(channels).fill(given) : given;
    display.contrastLimits = pairs.map((pair) => numbers(pair, 2, 'contrast_limits') as [number, number]);
  }
  if (Object.hasOwn(value, 'colors')) {
    const given = value['colors'];
    display.colors = typeof given === 'string' ? Array(channels).fill(text(given, 'colors')) : strings(given, channels, 'colors');
  }
  return display;
}
