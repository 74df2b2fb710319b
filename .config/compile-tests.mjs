// Compiles `src` and `test` for a Node that does not read TypeScript: once, because a loader costs each process more than most tests take.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { transform } from 'esbuild'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const OUT = join(ROOT, 'node_modules/.cache/javascript')
const MANIFEST = join(OUT, 'manifest.json')

/** The specifier of an import of TypeScript, and of a static import of anything else. Both are relative; code in strings has neither. */
const OF_TYPESCRIPT = /(\bfrom |\bimport\(|\bimport )'(\.{1,2}\/[^']+)\.ts'/g
const OF_OTHERS = / from '(\.{1,2}\/[^']+\.(?:mjs|js|json))'/g

/**
 * Compiles each file that has changed since the last time, and takes away what has no source any more. The copies know their sources' places,
 * and import files that are no TypeScript from there.
 * @returns the place of a file's copy, or of the copies that a glob stands for, as tap takes it.
 */
export async function compileTests () {
  const before = existsSync(MANIFEST) ? JSON.parse(readFileSync(MANIFEST, 'utf8')) : {}
  const now = {}
  const compiler = hashOf(readFileSync(fileURLToPath(import.meta.url)))
  const sources = ['src', 'test'].flatMap(folder => readdirSync(join(ROOT, folder), { recursive: true }).map(name => join(folder, String(name))))
    .filter(name => name.endsWith('.ts') && !name.endsWith('.d.ts'))
  await Promise.all(sources.map(async name => {
    const source = readFileSync(join(ROOT, name), 'utf8')
    now[name] = hashOf(source + compiler)
    if (now[name] === before[name]) return
    const { code } = await transform(located(name, source), { loader: 'ts', format: 'esm', target: 'node20', sourcemap: 'inline', sourcefile: join(ROOT, name), define: placeOf(name) })
    mkdirSync(dirname(copyOf(name)), { recursive: true })
    writeFileSync(copyOf(name), code)
  }))
  for (const name of Object.keys(before)) if (!(name in now)) rmSync(copyOf(name), { force: true })
  writeFileSync(join(OUT, 'package.json'), '{"type":"module"}\n')
  writeFileSync(MANIFEST, JSON.stringify(now))
  return name => relative(process.cwd(), copyOf(relative(ROOT, resolve(name))))
}

function copyOf (name) {
  return join(OUT, name.replace(/\.ts$/, '.js'))
}

/** Imports of TypeScript become those of its copy; all others become absolute. */
function located (name, source) {
  const here = pathToFileURL(join(ROOT, name))
  return source.replace(OF_OTHERS, (_, specifier) => ` from '${new URL(specifier, here)}'`).replace(OF_TYPESCRIPT, "$1'$2.js'")
}

function placeOf (name) {
  const file = join(ROOT, name)
  const place = { url: pathToFileURL(file).href, dirname: dirname(file), filename: file }
  return Object.fromEntries(Object.entries(place).map(([member, value]) => [`import.meta.${member}`, JSON.stringify(value)]))
}

function hashOf (content) {
  return createHash('sha256').update(content).digest('base64url')
}
