// The fast coder against the page's definition, written out in integers without a bound.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freshStatistics, MixingDecoder } from '../src/mixing.js';
import { Random } from './reseal.js';

const floor = (numerator: bigint, denominator: bigint): bigint =>
  numerator >= 0n ? numerator / denominator : -((-numerator + denominator - 1n) / denominator);
const clip = (value: bigint, low: bigint, high: bigint): bigint => (value < low ? low : value > high ? high : value);

class Plain {
  private low = 0n;
  private high = 2n ** 32n - 1n;
  private word = 0n;
  private at = 4;
  readonly p: bigint[];
  readonly n: bigint[];
  readonly w: bigint[];

  constructor(private readonly stream: Uint8Array, contexts: number, weights: readonly number[]) {
    for (let i = 0; i < 4; i++) this.word = this.word * 256n + BigInt(stream[i] ?? 0);
    this.p = Array<bigint>(contexts).fill(32768n);
    this.n = Array<bigint>(contexts).fill(0n);
    this.w = weights.map(BigInt);
  }

  decide(inputs: readonly number[], set: number): number {
    const s = inputs.map((context) => {
      const i = Number(this.p[context]! / 16n);
      return clip(BigInt(Math.floor(256 * Math.log((i + 0.5) / (4095.5 - i)) + 0.5)), -2047n, 2047n);
    });
    const sum = s.reduce((total, each, i) => total + each * this.w[7 * set + i]!, 0n);
    const x = Number(clip(floor(sum, 65536n), -2047n, 2047n));
    const m = clip(BigInt(Math.floor(65536 / (1 + Math.exp(-x / 256)) + 0.5)), 16n, 65520n);
    const range = this.high - this.low;
    const middle = this.low + (range / 65536n) * m + ((range % 65536n) * m) / 65536n;
    const y = this.word <= middle ? 1n : 0n;
    if (y) this.high = middle;
    else this.low = middle + 1n;
    while (this.low >> 24n === this.high >> 24n) {
      this.low = (this.low << 8n) % 2n ** 32n;
      this.high = ((this.high << 8n) % 2n ** 32n) + 255n;
      this.word = ((this.word << 8n) % 2n ** 32n) + BigInt(this.stream[this.at++] ?? 0);
    }
    const e = floor(14n * (65536n * y - m), 16n);
    s.forEach((each, i) => {
      this.w[7 * set + i] = clip(this.w[7 * set + i]! + floor(each * e + 32768n, 65536n), -(2n ** 24n), 2n ** 24n);
    });
    for (const context of inputs) {
      const rate = 327680n / (5n * this.n[context]! + 8n);
      this.p[context] = clip(this.p[context]! + floor((65535n * y - this.p[context]!) * rate, 65536n), 32n, 65503n);
      if (this.n[context]! < 250n) this.n[context]!++;
    }
    return Number(y);
  }
}

const LIMIT = 2 ** 24;
const STARTS = {
  'as a trunk starts': () => 19660,
  // Weights of both signs hold one another, so that some are driven over their limits.
  'at their limits': (i: number) => (i % 2 ? -1 : 1) * (LIMIT - 700 * (i % 7)),
};

for (const [name, start] of Object.entries(STARTS)) {
  test(`decisions are those of the page, from weights ${name}`, () => {
    const random = new Random(11);
    // Runs of equal bytes drive probabilities and weights.
    const stream = Uint8Array.from({ length: 6000 }, (_, i) => (i % 500 < 300 ? (i % 1000 < 500 ? 0 : 255) : random.below(256)));
    const weights = Array.from({ length: 14 }, (_, i) => start(i));
    const statistics = { ...freshStatistics(70, 2, 0), weights: Int32Array.from([...weights.slice(0, 7), 0, ...weights.slice(7), 0]) };
    const fast = new MixingDecoder(stream, statistics);
    const plain = new Plain(stream, 70, weights);
    let limited = 0;
    for (let i = 0; i < 20000; i++) {
      const inputs = Array.from({ length: 7 }, (_, k) => 10 * k + random.below(i % 3 ? 2 : 10));
      const set = random.below(2);
      const [c0, c1, c2, c3, c4, c5, c6] = inputs as [number, number, number, number, number, number, number];
      assert.equal(fast.decide(c0, c1, c2, c3, c4, c5, c6, set), plain.decide(inputs, set), `decision ${i}`);
      if (plain.w.some((weight) => weight === BigInt(LIMIT) || weight === BigInt(-LIMIT))) limited++;
    }
    assert.equal(limited > 100, name === 'at their limits');
    const learnt = fast.learnt();
    assert.deepEqual([...learnt.weights].filter((_, i) => i % 8 < 7), plain.w.map(Number));
    assert.deepEqual([...learnt.contexts], plain.p.map((p, i) => Number(p * 256n + plain.n[i]!)));
  });
}
