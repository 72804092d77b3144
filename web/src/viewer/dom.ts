type Child = Node | string;

/** Make an element. Text becomes text nodes, whatever is in it: nothing on the page is ever parsed as HTML. */
export function el<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag, attributes: Readonly<Record<string, string>> = {}, children: readonly Child[] = [],
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function select(label: string, options: readonly string[], value: string, changed: (value: string) => void): HTMLSelectElement {
  const made = el('select', { 'aria-label': label }, options.map((option) => el('option', { value: option }, [option])));
  made.value = value;
  made.addEventListener('change', () => changed(made.value));
  return made;
}

export function slider(label: string, lowest: number, highest: number, step: number, value: number, changed: (value: number) => void): HTMLInputElement {
  const made = el('input', { type: 'range', 'aria-label': label, min: String(lowest), max: String(highest), step: String(step) });
  made.value = String(value);
  made.addEventListener('input', () => changed(Number(made.value)));
  return made;
}

export function button(label: string, title: string, pressed: () => void): HTMLButtonElement {
  const made = el('button', { type: 'button', title }, [label]);
  made.addEventListener('click', pressed);
  return made;
}
