// The column beside the views: what the file is, how it is shown, and where to trust it.
import { COLOR_NAMES, type ColorName } from './colors.js';
import { button, el, select, slider } from './dom.js';
import { COMPARISONS, type Comparison, LAYOUTS, type Layout, MEASURES, type Measure, type Model } from './model.js';
import { bytesText, decibelsText, dtypeText, numberText, octantText, rawBytes, shapeText, trustText, unitText, worstOctants } from './words.js';

const WORST = 8;
const BINS = 128;
const STEPS = 1000;
const KEYS: readonly (readonly [string, string])[] = [
  ['drag', 'move the crosshair'],
  ['wheel, Page keys', 'change the plane'],
  ['Ctrl + wheel, pinch, + −', 'zoom'],
  ['Shift + drag, two fingers', 'pan'],
  ['double click', 'one view, all views'],
  ['arrows', 'step; with Shift, 10 voxels'],
  ['1 – 5, 0', 'choose views; fit'],
  ['q, c, a', 'quality, crosshair, contrast'],
  ['f, space', 'the second file'],
  ['[ ]', 'time'],
];

export class Panel {
  readonly element = el('aside');
  private readonly trust = el('div');
  private readonly worst = el('ol', { class: 'worst' });
  private readonly cursor = el('p', { class: 'cursor' });
  private readonly channels = el('div', { class: 'channels' });
  private readonly contrast = el('div', { class: 'contrast' });
  private readonly histogram = el('canvas', { class: 'histogram', height: '48', width: String(2 * BINS) });
  private readonly histograms = new Map<number, Float64Array>();
  private readonly shownBy: (() => void)[] = [];
  private item = -1;

  constructor(
    private readonly model: Model,
    private readonly valueAtCursor: (channel: number) => number | undefined,
    private readonly fit: () => void,
  ) {
    const { decodable } = model.main;
    if (decodable)
      this.element.append(
        this.section('', [this.viewRow(), this.cursor]),
        this.section(model.channels.length > 1 ? 'Channels' : 'Contrast', [this.channels, this.histogram, this.contrast]),
        ...(model.times > 1 ? [this.section('Time', [this.timeRow()])] : []),
        ...(model.files.length > 1 ? [this.section('Compare', [this.compareRow()])] : []),
      );
    this.element.append(
      this.section('Where to trust it', [this.trust, ...(decodable ? [this.qualityRow()] : [])]),
      this.section(`Weakest ${octantText(model.frame)}s`, [this.worst]),
      this.fold('File', [this.facts()]),
      this.fold('How it was made', [this.provenance()]),
      ...(decodable ? [this.fold('Mouse, touch and keys', [this.list(KEYS)])] : []),
    );
    this.makeChannels();
    this.makeContrast();
    model.onChange(() => this.update());
  }

  private section(title: string, children: readonly Node[]): HTMLElement {
    return el('section', {}, [...(title ? [el('h2', {}, [title])] : []), ...children]);
  }

  private fold(title: string, children: readonly Node[]): HTMLElement {
    return el('details', {}, [el('summary', {}, [title]), ...children]);
  }

  /** Buttons of which one is pressed. */
  private choice<T extends string>(label: string, options: readonly T[], now: () => T, choose: (option: T) => void): HTMLElement {
    const buttons = options.map((option) => button(option, `${label}: ${option}`, () => {
      choose(option);
      this.model.changed();
    }));
    this.shownBy.push(() => buttons.forEach((made, i) => made.setAttribute('aria-pressed', String(options[i] === now()))));
    return el('div', { class: 'choice', role: 'group', 'aria-label': label }, buttons);
  }

  private viewRow(): HTMLElement {
    const { model } = this;
    const layouts = model.shape[[...model.letters].indexOf('z')] === 1 ? (['xy'] as const) : LAYOUTS;
    const layout = this.choice<Layout>('views', layouts, () => model.layout, (option) => {
      model.layout = option;
      model.zoom = 0;
    });
    const crosshair = this.choice('crosshair', ['crosshair'], () => (model.crosshair ? 'crosshair' : ''), () => (model.crosshair = !model.crosshair));
    crosshair.append(button('fit', 'all of the volume (0)', this.fit));
    return el('div', { class: 'row' }, [layout, crosshair]);
  }

  private qualityRow(): HTMLElement {
    const { model } = this;
    const octants = `${octantText(model.frame)}s`;
    const legend = el('div', { class: 'legend' }, [el('span', {}, ['weak']), el('i'), el('span', {}, ['good'])]);
    this.shownBy.push(() => legend.toggleAttribute('hidden', model.measure === 'off'));
    const choice = this.choice<Measure>(`${octants} in the views`, MEASURES, () => model.measure, (option) => (model.measure = option));
    return el('div', {}, [el('p', { class: 'label' }, [`Quality of ${octants} in the views`]), choice, legend]);
  }

  private timeRow(): HTMLElement {
    const { model } = this;
    const text = el('output');
    const made = slider('time point', 0, model.times - 1, 1, 0, (value) => {
      model.time = value;
      model.changed();
    });
    this.shownBy.push(() => {
      made.value = String(model.time);
      text.textContent = `${model.time + 1} of ${model.times}`;
    });
    return el('div', { class: 'line' }, [made, text]);
  }

  private compareRow(): HTMLElement {
    const { model } = this;
    const names = model.files.map((file, i) => el('p', { class: 'label' }, [`${i ? 'second' : 'first'}: ${file?.name ?? 'cannot be shown'}`]));
    const choice = this.choice<Comparison>('files in the views', COMPARISONS, () => model.comparison, (option) => {
      model.comparison = option;
      this.fit();
    });
    return el('div', {}, [choice, ...names]);
  }

  private makeChannels(): void {
    const { model } = this;
    const rows = model.channels.map((channel, i) => {
      const color = select(`colours of ${channel.name}`, COLOR_NAMES, channel.color, (value) => {
        channel.color = value as ColorName;
        model.changed();
      });
      if (model.channels.length === 1) return el('div', { class: 'line' }, [el('label', {}, ['Colours']), color]);
      const visible = el('input', { type: 'checkbox', 'aria-label': `show ${channel.name}` });
      visible.checked = channel.visible;
      visible.addEventListener('change', () => {
        channel.visible = visible.checked;
        model.changed();
      });
      const name = button(channel.name, 'set its contrast', () => {
        model.channel = i;
        this.makeContrast();
        model.changed();
      });
      this.shownBy.push(() => name.setAttribute('aria-pressed', String(model.channel === i)));
      return el('div', { class: 'line' }, [visible, name, color]);
    });
    this.channels.replaceChildren(...rows);
  }

  private makeContrast(): void {
    const { model } = this;
    const channel = model.channels[model.channel]!;
    const step = (channel.maximum - channel.minimum) / STEPS || 1;
    const low = slider('darkest value', channel.minimum, channel.maximum, step, channel.low, (value) => {
      channel.low = Math.min(value, channel.high);
      model.changed();
    });
    const high = slider('brightest value', channel.minimum, channel.maximum, step, channel.high, (value) => {
      channel.high = Math.max(value, channel.low);
      model.changed();
    });
    const text = el('output');
    this.contrast.replaceChildren(
      low, high,
      el('div', { class: 'line' }, [text, button('auto', 'from the 0.5 % darkest to the 0.1 % brightest (a)', () => this.autoContrast()), button('full', 'the whole range', () => {
        [channel.low, channel.high] = [channel.minimum, channel.maximum];
        model.changed();
      })]),
    );
    this.showContrast = () => {
      low.value = String(channel.low);
      high.value = String(channel.high);
      text.textContent = `${numberText(channel.low)} – ${numberText(channel.high)}`;
    };
  }

  private showContrast: () => void = () => undefined;

  /** Stretch the contrast of the chosen channel over almost all of its values. */
  autoContrast(channel = this.model.channel): void {
    const counts = this.histograms.get(this.model.item(channel));
    if (!counts) return;
    const found = this.model.channels[channel]!;
    const total = counts.reduce((sum, count) => sum + count, 0);
    const width = (found.maximum - found.minimum) / BINS;
    let below = 0, low = 0, high = BINS;
    for (let bin = 0, done = false; bin < BINS; bin++) {
      below += counts[bin]!;
      if (!done && below > 0.005 * total) [low, done] = [bin, true];
      if (below >= 0.999 * total) {
        high = bin + 1;
        break;
      }
    }
    found.low = found.minimum + low * width;
    found.high = found.minimum + Math.max(high, low + 1) * width;
    this.model.changed();
  }

  takeHistogram(item: number, samples: Float32Array): void {
    const { minimum, maximum } = this.model.frame.items[item]!;
    const counts = new Float64Array(BINS);
    const factor = BINS / (maximum - minimum || 1);
    for (const sample of samples) counts[Math.min(BINS - 1, Math.max(0, Math.floor((sample - minimum) * factor)))]!++;
    this.histograms.set(item, counts);
    // What a file asks for is kept; else the brightest few voxels would make everything dark.
    const channel = this.model.channels.findIndex((_, i) => this.model.item(i) === item);
    if (channel >= 0 && !this.model.frame.metadata.display.contrastLimits) this.autoContrast(channel);
    this.model.changed();
  }

  private drawHistogram(): void {
    const counts = this.histograms.get(this.model.item());
    const context = this.histogram.getContext('2d')!;
    const { width, height } = this.histogram;
    context.clearRect(0, 0, width, height);
    if (!counts) return;
    const style = getComputedStyle(this.element);
    const { low, high, minimum, maximum } = this.model.channels[this.model.channel]!;
    const top = Math.log1p(Math.max(...counts));
    counts.forEach((count, bin) => {
      const value = minimum + ((bin + 0.5) / BINS) * (maximum - minimum);
      context.fillStyle = style.getPropertyValue(value >= low && value <= high ? '--accent' : '--line');
      const tall = top ? (Math.log1p(count) / top) * height : 0;
      context.fillRect((bin * width) / BINS, height - tall, width / BINS, tall);
    });
  }

  private facts(): HTMLElement {
    const { model } = this;
    return this.list(model.files.flatMap((file) => {
      if (!file) return [];
      const { frame, name, bytes } = file;
      const raw = rawBytes(frame);
      const size = bytes ?? frame.size;
      const voxel = frame.metadata.voxelSize.flatMap((length, i) => ('tc'.includes(frame.axes[i]!) ? [] : [`${numberText(length)} ${unitText(frame.metadata.units[i]!)}`]));
      return [
        ['name', frame.metadata.name || name], ['shape', shapeText(frame)], ['voxels', dtypeText(frame.dtype)], ['voxel size', voxel.join(' × ')],
        ['size', `${bytesText(size)}, of ${bytesText(raw)}: ${numberText(raw / size)} times smaller`],
      ] as const;
    }));
  }

  private provenance(): HTMLElement {
    const { provenance } = this.model.frame.metadata;
    const rows = Object.entries(provenance).map(([key, value]) => [key, String(value)] as const);
    return rows.length ? this.list(rows) : el('p', {}, ['The file does not say it.']);
  }

  private list(rows: readonly (readonly [string, string])[]): HTMLElement {
    return el('dl', {}, rows.flatMap(([key, value]) => [el('dt', {}, [key]), el('dd', {}, [value])]));
  }

  private showQuality(): void {
    const { model } = this;
    const file = model.described;
    const { frame } = model.files[file]!;
    const quality = model.quality(file);
    const sentences = trustText(frame, quality, model.item());
    // Every channel and every file has octants of its own.
    const names = [...(model.files.length > 1 ? [model.files[file]!.name] : []), ...(model.channels.length > 1 ? [model.channels[model.channel]!.name] : [])];
    const title = names.length ? [el('p', { class: 'label' }, [names.join(', ')])] : [];
    this.trust.replaceChildren(...title, ...sentences.map((sentence) => el('p', {}, [sentence])));
    const worst = quality ? worstOctants(quality, WORST) : [];
    this.worst.replaceChildren(...worst.map((octant) => {
      const { start, stop } = quality!.extent(octant);
      const place = start.map((first, axis) => `${frame.spatialAxes[axis]} ${first}–${stop[axis]! - 1}`).join('  ');
      const visit = button('', 'go there', () => {
        const middle = start.map((first, axis) => (first + stop[axis]! - 1) / 2);
        model.lookAt([...Array(3 - middle.length).fill(0), ...middle]);
        if (model.measure === 'off') model.measure = 'PSNR';
      });
      visit.append(el('b', {}, [decibelsText(quality!.psnr(octant))]), el('span', {}, [`off by ${numberText(quality!.largestError(octant))} at most`]), el('small', {}, [place]));
      return el('li', {}, [visit]);
    }));
    if (!worst.length) this.worst.replaceChildren(el('li', {}, [quality ? 'None: all are exact.' : 'The file does not say it.']));
  }

  private update(): void {
    const { model } = this;
    for (const show of this.shownBy) show();
    this.showContrast();
    this.drawHistogram();
    const item = model.item() + 1e6 * model.described;
    if (item !== this.item) {
      this.item = item;
      this.showQuality();
    }
    const { cursor, letters, voxelSize, unit } = model;
    const place = [...letters].map((letter, axis) => `${letter} ${cursor[axis]}`).join('  ');
    const units = unit ? ` (${cursor.map((at, axis) => numberText(at * voxelSize[axis]!)).join(', ')} ${unitText(unit)})` : '';
    const values = model.channels.map((channel, i) => (channel.visible ? this.valueAtCursor(i) : undefined));
    const value = values.every((each) => each === undefined) ? '' : values.map((each) => (each === undefined ? '–' : numberText(each))).join(' / ');
    this.cursor.replaceChildren(el('span', {}, [place + units]), el('b', {}, [value]));
  }
}
