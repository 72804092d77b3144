// What is drawn over the voxels: octants and their numbers, the crosshair, the scale bar.
import { qualityColor } from './colors.js';
import type { Model } from './model.js';
import type { Orientation, Pane } from './view.js';
import { decibelsText, niceLength, numberText, unitText } from './words.js';
import type { Quality } from '../index.js';

const BAR_PIXELS = 120;
const FONT = '12px system-ui, sans-serif';
/** Octants smaller than this on the screen get no number. */
const LABEL_PIXELS = 44;

/** What an octant is coloured by: 0 worst, 1 best; and its number. */
export function valueOf(quality: Quality, measure: string, octant: number, range: number): { share: number; text: string } {
  if (measure === 'PSNR') {
    const psnr = quality.psnr(octant);
    return { share: Math.min(1, Math.max(0, (psnr - 20) / 40)), text: decibelsText(psnr) };
  }
  if (measure === 'Dice') {
    const dice = quality.dice(octant);
    return { share: dice, text: dice.toFixed(2) };
  }
  const error = quality.largestError(octant);
  // 0.1 % of the range is as good as it gets, all of it as bad: in powers of ten.
  return { share: Math.min(1, Math.max(0, -Math.log10(error / range) / 3)), text: `±${numberText(error)}` };
}

export function drawOctants(context: CanvasRenderingContext2D, pane: Pane, { h, v, d }: Orientation, model: Model): void {
  const quality = model.quality(pane.file);
  if (!quality) return;
  const { minimum, maximum } = model.files[pane.file]!.frame.items[model.item()]!;
  // An image has two spatial axes, behind one of a single plane here.
  const shift = 3 - model.frame.spatialShape.length;
  context.font = FONT;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  for (let octant = 0; octant < quality.octants; octant++) {
    const { start, stop } = quality.extent(octant);
    const from = (axis: number): number => (axis < shift ? 0 : start[axis - shift]!);
    const to = (axis: number): number => (axis < shift ? 1 : stop[axis - shift]!);
    if (model.cursor[d]! < from(d) || model.cursor[d]! >= to(d)) continue;
    const left = pane.x(from(h)), right = pane.x(to(h)), top = pane.y(from(v)), bottom = pane.y(to(v));
    if (right < pane.left || left > pane.left + pane.width || bottom < 0 || top > pane.height) continue;
    const { share, text } = valueOf(quality, model.measure, octant, maximum - minimum);
    context.fillStyle = qualityColor(share, 0.16);
    context.fillRect(left, top, right - left, bottom - top);
    context.strokeStyle = qualityColor(share, 0.75);
    context.lineWidth = 1;
    context.strokeRect(Math.round(left) + 0.5, Math.round(top) + 0.5, Math.round(right - left) - 1, Math.round(bottom - top) - 1);
    if (right - left < LABEL_PIXELS || bottom - top < LABEL_PIXELS / 2) continue;
    outlined(context, text, (left + right) / 2, (top + bottom) / 2);
  }
}

export function drawCrosshair(context: CanvasRenderingContext2D, pane: Pane, { h, v }: Orientation, model: Model): void {
  const x = Math.round(pane.x(model.cursor[h]! + 0.5)) + 0.5, y = Math.round(pane.y(model.cursor[v]! + 0.5)) + 0.5;
  const gap = 7;
  context.strokeStyle = 'rgba(90, 200, 250, 0.65)';
  context.lineWidth = 1;
  context.beginPath();
  for (const [x1, y1, x2, y2] of [
    [pane.left, y, x - gap, y], [x + gap, y, pane.left + pane.width, y], [x, 0, x, y - gap], [x, y + gap, x, pane.height],
  ] as const) {
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
  }
  context.stroke();
}

export function drawScaleBar(context: CanvasRenderingContext2D, pane: Pane, model: Model, name: string): void {
  const length = niceLength(BAR_PIXELS / model.zoom);
  const width = length * model.zoom;
  const unit = model.unit ? unitText(model.unit) : length === 1 ? 'voxel' : 'voxels';
  const left = pane.left + 14, bottom = pane.height - 14;
  context.fillStyle = 'rgba(0, 0, 0, 0.55)';
  context.fillRect(left - 1, bottom - 4, width + 2, 5);
  context.fillStyle = '#fff';
  context.fillRect(left, bottom - 3, width, 3);
  context.font = FONT;
  context.textAlign = 'left';
  context.textBaseline = 'bottom';
  outlined(context, `${numberText(length)} ${unit}`, left, bottom - 6);
  if (!name) return;
  context.textBaseline = 'top';
  outlined(context, name, pane.left + 12, 10);
}

function outlined(context: CanvasRenderingContext2D, text: string, x: number, y: number): void {
  context.lineJoin = 'round';
  context.lineWidth = 3;
  context.strokeStyle = 'rgba(0, 0, 0, 0.7)';
  context.strokeText(text, x, y);
  context.fillStyle = '#fff';
  context.fillText(text, x, y);
}
