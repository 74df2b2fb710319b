// Makes a clone runnable: installs the locked dependencies and builds dist/, each only when it is out of date.
// Plain JavaScript without imports from node_modules, because it runs before anything is installed.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const oldest = [20, 19]

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
  fail(`Node ${process.versions.node} is too old: this needs Node ${oldest.join('.')} or newer`)
}

const lock = hashOf([join(root, 'package-lock.json')])
once('node_modules/.cvm-installed', lock, 'installing dependencies (about half a minute)', () =>
  run(process.platform === 'win32' ? 'npm.cmd' : 'npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']))
once('dist/.cvm-built', hashOf([...filesIn(join(root, 'src')), join(root, 'tsconfig.json')]) + lock, 'building', () => {
  rmSync(join(root, 'dist'), { recursive: true, force: true })
  run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', '.config/tsconfig.build.json'])
})
if (process.argv.includes('--tests')) {
  once('node_modules/.cvm-tap-built', lock + hashOf([join(root, '.taprc')]), "building tap's plugins", () =>
    run(process.execPath, [join(root, 'node_modules/tap/dist/esm/run.mjs'), 'build']))
}

function once (marker, wanted, what, work) {
  const file = join(root, marker)
  if (existsSync(file) && readFileSync(file, 'utf8') === wanted) return
  process.stderr.write(`setup: ${what}\n`)
  work()
  writeFileSync(file, wanted)
}

function run (command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] })
  if (error || status !== 0) fail(`${command} ${args[0]} failed${error ? `: ${error.message}` : ` with exit code ${status}`}`)
}

function filesIn (folder) {
  return readdirSync(folder, { recursive: true }).map(name => join(folder, String(name))).filter(file => statSync(file).isFile()).sort()
}

function hashOf (files) {
  const hash = createHash('sha256')
  for (const file of files) hash.update(file.slice(root.length)).update(readFileSync(file))
  return hash.digest('hex')
}

function fail (message) {
  process.stderr.write(`setup: ${message}\n`)
  process.exit(1)
}
