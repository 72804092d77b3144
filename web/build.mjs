import { build } from 'esbuild';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';

const common = { bundle: true, format: 'esm', target: 'es2022', logLevel: 'warning', charset: 'utf8' };

if (process.argv[2] === 'tests') {
  rmSync('build/tests', { recursive: true, force: true });
  mkdirSync('build/tests', { recursive: true });
  const tests = readdirSync('tests').filter((name) => name.endsWith('.test.ts'));
  await build({
    ...common, platform: 'node', packages: 'external', entryPoints: tests.map((name) => `tests/${name}`), outdir: 'build/tests', outExtension: { '.js': '.mjs' },
  });
}
