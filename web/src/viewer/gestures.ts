// Mouse, touch and keys on a view.
import type { Model } from './model.js';
import type { View } from './view.js';

const ZOOM_STEP = 1.2;
/** Pixels of wheel that make a plane: a notch of most mice is 100, trackpads send many small ones. */
const WHEEL_PLANE = 60;
const LINE_PIXELS = 30;

export function attend(view: View, model: Model): void {
  const { canvas, orientation } = view;
  const { h, v, d, maximum } = orientation;
  const fingers = new Map<number, { x: number; y: number }>();
  let turned = 0;

  const place = (event: { clientX: number; clientY: number }): { x: number; y: number } => {
    const { left, top } = canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  const point = ({ x, y }: { x: number; y: number }): void => {
    const at = view.voxelAt(x, y);
    model.moveTo(at.map((voxel, axis) => (axis === h || axis === v ? Math.floor(voxel) : voxel)));
  };
  const pan = (dx: number, dy: number): void => {
    model.centre[h]! -= dx / model.zoom;
    model.centre[v]! -= dy / model.zoom;
    model.changed();
  };
  const zoom = (factor: number, { x, y }: { x: number; y: number }): void => {
    const before = view.voxelAt(x, y);
    model.zoom = Math.min(200, Math.max(1e-9, model.zoom * factor));
    const after = view.voxelAt(x, y);
    for (const axis of [h, v]) model.centre[axis]! += (before[axis]! - after[axis]!) * model.voxelSize[axis]!;
    model.changed();
  };

  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? LINE_PIXELS : 1);
    if (event.ctrlKey || event.metaKey || maximum) {
      zoom(Math.exp(-pixels / 300), place(event));
      return;
    }
    turned += pixels;
    const planes = Math.trunc(turned / WHEEL_PLANE);
    turned -= planes * WHEEL_PLANE;
    if (planes) view.goTo(model.cursor[d]! + planes);
  }, { passive: false });

  canvas.addEventListener('contextmenu', (event) => event.preventDefault());
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 1 && event.button === 0 && !event.shiftKey) point(place(event));
  });
  canvas.addEventListener('pointermove', (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = place(event);
    fingers.set(event.pointerId, now);
    if (fingers.size === 1) {
      if (event.shiftKey || event.buttons & 6) pan(now.x - before.x, now.y - before.y);
      else point(now);
      return;
    }
    const other = [...fingers].find(([id]) => id !== event.pointerId)![1];
    const spread = (finger: { x: number; y: number }): number => Math.hypot(finger.x - other.x, finger.y - other.y) || 1;
    zoom(spread(now) / spread(before), other);
    pan((now.x - before.x) / 2, (now.y - before.y) / 2);
  });
  for (const end of ['pointerup', 'pointercancel'] as const) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener('dblclick', () => {
    model.layout = model.layout === 'four' ? layoutOf(maximum ? 'max' : orientation.name) : 'four';
    model.zoom = 0;
    model.changed();
  });

  canvas.addEventListener('keydown', (event) => {
    const cursor = [...model.cursor];
    const step = event.shiftKey ? 10 : 1;
    const middle = { x: view.size[0] / 2, y: view.size[1] / 2 };
    const moves: Readonly<Record<string, () => void>> = {
      ArrowLeft: () => (cursor[h]! -= step),
      ArrowRight: () => (cursor[h]! += step),
      ArrowUp: () => (cursor[v]! -= step),
      ArrowDown: () => (cursor[v]! += step),
      PageUp: () => (cursor[d]! -= step),
      PageDown: () => (cursor[d]! += step),
      '+': () => zoom(ZOOM_STEP, middle),
      '=': () => zoom(ZOOM_STEP, middle),
      '-': () => zoom(1 / ZOOM_STEP, middle),
    };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move();
    model.moveTo(cursor);
  });
}

function layoutOf(name: string): Model['layout'] {
  return name === 'xy' || name === 'xz' || name === 'yz' ? name : 'max';
}
