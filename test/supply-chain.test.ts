// What comes from others: pinned, under licences that are on the list, never run while it is installed; the same for what runs on GitHub.
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parse } from 'yaml'

interface Locked {
  version?: string
  integrity?: string
  resolved?: string
  link?: boolean
  dev?: boolean
  devOptional?: boolean
  optional?: boolean
  hasInstallScript?: boolean
}
interface Manifest {
  dependencies: Record<string, string>
  devDependencies: Record<string, string>
  optionalDependencies?: Record<string, string>
  allowScripts: Record<string, boolean>
}
interface Step { uses?: string, with?: Record<string, unknown> }
interface Job { 'timeout-minutes'?: number, permissions?: object, steps: Step[] }
interface Workflow { permissions?: object, concurrency?: object, jobs: Record<string, Job> }

const ROOT = fileURLToPath(new URL('..', import.meta.url))
/** Licences (SPDX) of what is in the image: they ask for no more than to be named. */
const LICENCES = new Set(['MIT', 'Apache-2.0', 'ISC', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD', 'BlueOak-1.0.0'])

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const manifest = JSON.parse(read('package.json')) as Manifest
const lock = JSON.parse(read('package-lock.json')) as { lockfileVersion: number, packages: Record<string, Locked> }
const locked = Object.entries(lock.packages).filter(([path]) => path !== '')
const nameOf = (path: string) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)

await t.test('every dependency is pinned by version and by hash', async t => {
  t.equal(lock.lockfileVersion, 3)
  t.ok(locked.length > 100, 'the lock file is read')
  const named = { ...manifest.dependencies, ...manifest.devDependencies, ...manifest.optionalDependencies }
  for (const [name, version] of Object.entries(named)) {
    t.match(version, /^\d+\.\d+\.\d+$/, `${name} is an exact version`)
    t.equal(lock.packages[`node_modules/${name}`]?.version, version, `${name} is the one that is locked`)
  }
  // What a package brings along inside itself is under the hash of that package.
  const isBundled = (path: string) => locked.some(([other]) => path.startsWith(`${other}/node_modules/`) && other !== path)
  for (const [path, { integrity, resolved, link }] of locked) {
    t.ok(integrity?.startsWith('sha512-') || isBundled(path), `${path} has a hash`)
    t.notOk(link, `${path} is no link`)
    t.equal(resolved, undefined, `${path} comes from the registry, whichever that is`)
  }
})

await t.test('no install script runs', async t => {
  const wanting = new Set(locked.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => nameOf(path)))
  t.strictSame([...wanting].sort(), Object.keys(manifest.allowScripts).sort(), 'whoever wants one was looked at')
  t.strictSame(Object.values(manifest.allowScripts).filter(Boolean), [], 'and refused')
  t.match(read('.npmrc'), /^ignore-scripts=true$/m)
  for (const file of ['.config/setup.mjs', 'Dockerfile', '.github/workflows/ci.yml']) {
    for (const [line] of read(file).matchAll(/^.*\bnpm['" ,A-Za-z?:.=]* ?\[?'?ci\b.*$/gm)) t.match(line, /--ignore-scripts/, `${file}: ${line.trim()}`)
  }
})

await t.test('what is in the image has a licence that is on the list', async t => {
  const production = locked.filter(([, { dev, devOptional, optional }]) => !dev && !devOptional && !optional)
  t.ok(production.length > 50)
  for (const [path] of production) {
    const file = join(ROOT, path, 'package.json')
    t.ok(existsSync(file), `${path} is installed`)
    const { license } = JSON.parse(readFileSync(file, 'utf8')) as { license?: unknown }
    t.ok(typeof license === 'string' && LICENCES.has(license), `${nameOf(path)}: ${JSON.stringify(license)}`)
  }
})

await t.test('what runs on GitHub is pinned by commit, may only read, and ends', async t => {
  for (const file of readdirSync(join(ROOT, '.github/workflows'))) {
    const text = read(`.github/workflows/${file}`)
    const { permissions, concurrency, jobs } = parse(text) as Workflow
    t.strictSame(permissions, { contents: 'read' }, `${file} may read, and no more`)
    t.ok(concurrency, `${file}: an older run makes way`)
    for (const [name, job] of Object.entries(jobs)) {
      t.notOk(job.permissions, `${name} asks for no more`)
      t.ok(job['timeout-minutes'], `${name} ends`)
      for (const step of job.steps.filter(({ uses }) => uses?.startsWith('actions/checkout'))) t.equal(step.with?.['persist-credentials'], false, `${name} leaves no token behind`)
    }
    const uses = text.split('\n').filter(line => /\buses:/.test(line))
    t.ok(uses.length > 0)
    for (const line of uses) t.match(line, /uses: [\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/, line.trim())
    t.notMatch(text, /pull_request_target|\$\{\{ *(secrets|github\.event\.[a-z_]+\.(title|body))/, `${file} hands nothing to strangers`)
  }
  t.match(read('.github/workflows/ci.yml'), /run: \.ci\/run$/m, 'the checks are those of every other machine')
  t.match(parse(read('.github/dependabot.yml')), { version: 2, updates: [{ 'package-ecosystem': 'npm' }, { 'package-ecosystem': 'github-actions' }] })
})
