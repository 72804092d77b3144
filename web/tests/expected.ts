import type { Frame } from '../src/index.js';

/** Values of little-endian bytes of a NumPy dtype, as numbers or bigints. */
export function valuesOf(dtype: string, bytes: Uint8Array): ArrayLike<number | bigint> {
  const { buffer, byteOffset, byteLength } = bytes.slice();
  const code = dtype.slice(1);
  const types = {
    u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array,
    i8: BigInt64Array, u8: BigUint64Array,
  } as const;
  const type = types[code as keyof typeof types];
  return new type(buffer, byteOffset, byteLength / type.BYTES_PER_ELEMENT);
}

/** One item of an array: its spatial axes in their order, row-major. */
export function itemOf<T>(frame: Frame, values: ArrayLike<T>, item: number): T[] {
  const { axes, shape } = frame;
  const places = [...axes].map((axis) => axis === 't' || axis === 'c');
  const index = new Array<number>(shape.length).fill(0);
  let rest = item;
  for (let axis = shape.length - 1; axis >= 0; axis--)
    if (places[axis]) {
      index[axis] = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
  const found: T[] = [];
  const descend = (axis: number, at: number): void => {
    if (axis === shape.length) {
      found.push(values[at]!);
      return;
    }
    const [from, to] = places[axis] ? [index[axis]!, index[axis]! + 1] : [0, shape[axis]!];
    for (let i = from; i < to; i++) descend(axis + 1, at * shape[axis]! + i);
  };
  descend(0, 0);
  return found;
}
