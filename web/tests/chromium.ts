// A headless Chromium, spoken to over two pipes with its DevTools protocol: no more is needed than node has.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];

/** The browser of this machine, or the one that CHROMIUM names. */
export function findChromium(): string | undefined {
  return [process.env['CHROMIUM'], ...NAMES].find((name) => name && spawnSync(name, ['--version']).status === 0);
}

interface Reply {
  readonly id?: number;
  readonly method?: string;
  readonly sessionId?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

export class Chromium {
  private readonly profile = mkdtempSync(join(tmpdir(), 'tinc-chromium-'));
  private readonly process: ChildProcess;
  private readonly waiting = new Map<number, (reply: Reply) => void>();
  private next = 1;
  readonly events: Reply[] = [];

  constructor(binary: string) {
    const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--hide-scrollbars', '--remote-debugging-pipe', `--user-data-dir=${this.profile}`];
    this.process = spawn(binary, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    let held = '';
    (this.process.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const parts = (held + text).split('\0');
      held = parts.pop()!;
      for (const part of parts) this.take(JSON.parse(part) as Reply);
    });
  }

  private take(reply: Reply): void {
    if (reply.id === undefined) this.events.push(reply);
    else this.waiting.get(reply.id)?.(reply);
  }

  send(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = this.next++;
    (this.process.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, ({ result, error }) => {
        this.waiting.delete(id);
        if (error) reject(new Error(`${method}: ${error.message}`));
        else resolve(result!);
      });
    });
  }

  /** Open an address in a tab of its own. */
  async open(url: string, { width = 1280, height = 860, dark = false, touch = false } = {}): Promise<Tab> {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const tab = new Tab(this, sessionId as string, targetId as string);
    await tab.send('Runtime.enable');
    await tab.send('Page.enable');
    await tab.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: touch });
    await tab.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }] });
    await tab.send('Page.navigate', { url });
    return tab;
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.process.once('exit', resolve));
    await this.send('Browser.close').catch(() => undefined);
    await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

export class Tab {
  constructor(
    private readonly browser: Chromium,
    private readonly session: string,
    private readonly target: string,
  ) {}

  send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    return this.browser.send(method, params, this.session);
  }

  /** The value of an expression in the page; promises are awaited. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value: T }).value;
  }

  /** Wait until an expression is true. */
  async until(expression: string, seconds = 20): Promise<void> {
    for (const stop = Date.now() + 1000 * seconds; !(await this.evaluate<boolean>(`Boolean(${expression})`).catch(() => false)); ) {
      if (Date.now() > stop) throw new Error(`waited ${seconds} s for ${expression}; complaints: ${this.complaints().join('; ')}`);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }

  async press(key: string): Promise<void> {
    const text = key.length === 1 ? key : undefined;
    await this.send('Input.dispatchKeyEvent', { type: 'keyDown', key, ...(text ? { text } : {}) });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', key });
  }

  async screenshot(path: string): Promise<void> {
    const { data } = await this.send('Page.captureScreenshot');
    writeFileSync(path, Buffer.from(data as string, 'base64'));
  }

  /** Errors of the page, and what it was refused or wrote to the console. */
  complaints(): string[] {
    const loud = ['Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded'];
    return this.browser.events.filter(({ method, sessionId }) => sessionId === this.session && loud.includes(method!)).map(({ params }) => JSON.stringify(params));
  }

  async close(): Promise<void> {
    await this.browser.send('Target.closeTarget', { targetId: this.target });
  }
}
