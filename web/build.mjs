// node build.mjs         the page template that napari-tinc ships
// node build.mjs print   the same, for the test that compares them
// node build.mjs tests   the tests, for `node --test`
// node build.mjs library the modules of the package
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import asc from 'assemblyscript/asc';
import { build } from 'esbuild';

/** The WebAssembly of assembly/mixing.ts, as bytes in the code. */
const embedMixing = {
  name: 'mixing',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^tinc:mixing$/ }, () => ({ path: 'mixing', namespace: 'tinc-mixing' }));
    onLoad({ filter: /.*/, namespace: 'tinc-mixing' }, async () => ({ contents: await compileMixing(), loader: 'binary' }));
  },
};

async function compileMixing() {
  const options = ['-O3', '--enable', 'simd', '--runtime', 'stub', '--noAssert', '--initialMemory', '4', '--maximumMemory', '4'];
  let binary;
  const { error, stderr } = await asc.main(['mixing.ts', '-o', 'mixing.wasm', ...options], {
    readFile: (name) => (name === 'mixing.ts' ? readFileSync('assembly/mixing.ts', 'utf8') : null),
    writeFile: (_, data) => void (binary = data),
  });
  if (error) throw new Error(`${error.message}\n${stderr}`);
  return binary;
}

const common = { bundle: true, format: 'esm', target: 'es2022', logLevel: 'warning', charset: 'utf8', plugins: [embedMixing] };
const TEMPLATE = '../napari_tinc/share/page.html';

const sha256 = (text) => createHash('sha256').update(text).digest('base64');

async function bundle(options) {
  const { outputFiles } = await build({ ...common, format: 'iife', minify: true, write: false, ...options });
  return outputFiles[0].text.trim();
}

/** The code of the workers as text: pages that are opened from disk start workers from it. */
const embedWorker = {
  name: 'worker',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^tinc:worker$/ }, () => ({ path: 'worker', namespace: 'tinc' }));
    onLoad({ filter: /.*/, namespace: 'tinc' }, async () => ({ contents: await bundle({ entryPoints: ['src/viewer/reader.ts'] }), loader: 'text' }));
  },
};

async function buildTemplate() {
  // A script ends at its first "</script": in a string of the code it is spelt otherwise.
  const script = (await bundle({ entryPoints: ['src/viewer/page.ts'], plugins: [embedMixing, embedWorker] })).replaceAll('</script', '<\\/script');
  const style = await bundle({ entryPoints: ['src/viewer/page.css'] });
  const page = readFileSync('src/viewer/page.html', 'utf8');
  const parts = { SCRIPT_HASH: sha256(script), STYLE_HASH: sha256(style), SCRIPT: script, STYLE: style };
  return page.replace(/@@(SCRIPT_HASH|STYLE_HASH|SCRIPT|STYLE)@@/g, (_, name) => parts[name]);
}

async function buildTests() {
  rmSync('build/tests', { recursive: true, force: true });
  mkdirSync('build/tests', { recursive: true });
  const tests = readdirSync('tests').filter((name) => name.endsWith('.test.ts') || ['judge.ts', 'bench.ts', 'screenshots.ts'].includes(name));
  await build({
    ...common, platform: 'node', packages: 'external', outdir: 'build/tests', outExtension: { '.js': '.mjs' },
    entryPoints: tests.map((name) => `tests/${name}`),
  });
  writeFileSync('build/tests/in_browser.js', await bundle({ entryPoints: ['tests/in_browser.ts'], plugins: [embedMixing, embedWorker] }));
}

const [task] = process.argv.slice(2);
if (task === 'tests') await buildTests();
else if (task === 'library') await build({ ...common, entryPoints: ['src/index.ts', 'src/worker.ts', 'src/zarr.ts'], outdir: 'dist', splitting: true });
else if (task === 'print') process.stdout.write(await buildTemplate());
else writeFileSync(TEMPLATE, await buildTemplate());
