/** Colour tables by name: a few stops each, between which colours are mixed. */
const STOPS = {
  gray: ['#000000', '#ffffff'],
  'gray, inverted': ['#ffffff', '#000000'],
  green: ['#000000', '#00ff00'],
  magenta: ['#000000', '#ff00ff'],
  cyan: ['#000000', '#00ffff'],
  yellow: ['#000000', '#ffff00'],
  red: ['#000000', '#ff0000'],
  blue: ['#000000', '#3060ff'],
  viridis: ['#440154', '#472d7b', '#3b528b', '#2c728e', '#21918c', '#28ae80', '#5ec962', '#addc30', '#fde725'],
  magma: ['#000004', '#1d1147', '#51127c', '#832681', '#b73779', '#e75263', '#fc8961', '#fec488', '#fcfdbf'],
} as const;

export type ColorName = keyof typeof STOPS;

export const COLOR_NAMES = Object.keys(STOPS) as ColorName[];

/** What channels are shown in where the file does not say it. */
export const CHANNEL_COLORS: readonly ColorName[] = ['green', 'magenta', 'cyan', 'yellow', 'red', 'blue'];

function parse(hex: string): [number, number, number] {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** 256 colours of three bytes each. */
export function colorTable(name: ColorName): Uint8Array {
  const stops = STOPS[name].map(parse);
  const table = new Uint8Array(768);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1);
    const left = Math.min(stops.length - 2, Math.floor(place));
    for (let part = 0; part < 3; part++) table[3 * i + part] = Math.round(stops[left]![part]! + (place - left) * (stops[left + 1]![part]! - stops[left]![part]!));
  }
  return table;
}

/** The table that is nearest to what a file asks for, by name or as #rrggbb; gray if that says nothing. */
export function nearestColor(asked: string): ColorName {
  if (asked in STOPS) return asked as ColorName;
  if (!/^#[0-9a-f]{6}/i.test(asked)) return 'gray';
  const [r, g, b] = parse(asked.slice(0, 7));
  const distance = (name: ColorName): number => {
    const [x, y, z] = parse(STOPS[name].at(-1)!);
    return (r - x) ** 2 + (g - y) ** 2 + (b - z) ** 2;
  };
  const single = ['gray', ...CHANNEL_COLORS] as ColorName[];
  return single.reduce((best, name) => (distance(name) < distance(best) ? name : best));
}

/** From the worst (0) to the best (1): orange over white to blue, which colour-blind readers can tell apart. */
export function qualityColor(share: number, alpha: number): string {
  const worst = [230, 97, 1], middle = [240, 240, 240], best = [33, 113, 181];
  const [from, to, t] = share < 0.5 ? [worst, middle, 2 * share] : [middle, best, 2 * share - 1];
  const parts = from.map((part, i) => Math.round(part + t * (to[i]! - part)));
  return `rgba(${parts.join(',')},${alpha})`;
}
