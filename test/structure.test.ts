// The shape of the code (DESIGN section 6): depth, sizes, names, who may import whom. Each check is also shown to bite.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const MAX_LINES = 400
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', 'src', 'test'], { cwd: ROOT, encoding: 'utf8' }).split('\n').filter(file => file.endsWith('.ts'))
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')

await t.test('files are few levels deep and short', async t => {
  t.ok(files.length > 20, 'the files are found')
  for (const file of files) {
    t.ok(file.split('/').length <= 4, `${file} is at most three folders deep`)
    t.ok(read(file).split('\n').length - 1 <= MAX_LINES, `${file} has at most ${MAX_LINES} lines`)
  }
})

await t.test('names are plain and never repeat their folder', async t => {
  for (const file of files.filter(file => file.startsWith('src/'))) {
    const name = basename(file, '.ts')
    t.match(name, /^[a-z0-9]+(-[a-z0-9]+)*(\.d)?$/, `${file} is kebab-case`)
    // Thing types are things of AWS IoT.
    if (name !== 'thing-types') t.notMatch(name, /-(service|utils?|types|helpers?)$|^(index|utils?|types|helpers?)$/, `${file} says what it holds`)
    const folder = basename(dirname(file))
    if (folder !== 'src') t.notMatch(name, new RegExp(`(^|-)${folder.replace(/s$/, '')}s?(-|$)`), `${file} does not repeat ${folder}`)
  }
})

await t.test('the domain is given its clock, its settings and its words', async t => {
  const forbidden = /\bprocess\.|\bDate\.now\b|\bnew Date\(\)|\bset(Timeout|Interval)\b|\bconsole\./
  for (const file of files.filter(file => /^src\/(vending|x509)\//.test(file))) t.notMatch(read(file), forbidden, file)
  t.match('const now = Date.now()', forbidden, 'the pattern bites')
})

await t.test('who may import whom', async t => {
  t.same(violations(ROOT), [], 'no rule is broken')

  const folder = mkdtempSync(join(tmpdir(), 'cvm-imports-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const wrong: Record<string, [string, string]> = {
    'src/vending/a.ts': ['../adapters/b.ts', 'vending'],
    'src/x509/a.ts': ['../vending/b.ts', 'x509'],
    'src/adapters/a.ts': ['../routes/b.ts', 'adapters'],
    'src/plugins/a.ts': ['../adapters/b.ts', 'plugins'],
    'src/schemas/a.ts': ['../routes/b.ts', 'schemas'],
    'src/observed/a.ts': ['../adapters/b.ts', 'observed'],
    'src/routes/a.ts': ['../routes/b.ts', 'routes'],
    'src/local/a.ts': ['../x509/b.ts', 'local'],
    'src/cli/a.ts': ['../vending/b.ts', 'cli'],
    'src/errors.ts': ['./config.ts', 'errors-and-config-stand-alone'],
    'src/app.ts': ['./local/b.ts', 'local-is-loaded-by-local-mode-alone'],
    'src/server.ts': ['./local-mode.ts', 'local-mode-is-loaded-dynamically'],
    'test/acceptance/a.ts': ['../../src/app.ts', 'acceptance-is-black-box']
  }
  const targets = ['adapters', 'vending', 'routes', 'x509', 'local'].map(name => `src/${name}/b.ts`)
  for (const file of [...targets, 'src/config.ts', 'src/local-mode.ts']) write(folder, file, 'export const b = 1\n')
  for (const [file, [target]] of Object.entries(wrong)) write(folder, file, `export { b } from '${target}'\n`)
  const found = violations(folder)
  for (const [file, [target, rule]] of Object.entries(wrong)) {
    t.ok(found.some(each => each.from === file && each.rule === rule), `${file} importing ${target} breaks ${rule}`)
  }
})

function write (folder: string, file: string, content: string): void {
  mkdirSync(dirname(join(folder, file)), { recursive: true })
  writeFileSync(join(folder, file), content)
}

function violations (folder: string): { from: string, rule: string }[] {
  const tool = join(ROOT, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs')
  const config = join(ROOT, '.config/dependency-cruiser.cjs')
  const project = existsSync(join(folder, 'tsconfig.json')) ? [] : ['--ts-config', join(ROOT, 'tsconfig.json')]
  const args = [tool, '--config', config, ...project, '--output-type', 'json', 'src', 'test']
  let output: string
  try {
    output = execFileSync(process.execPath, args, { cwd: folder, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  } catch (cause) {
    // A broken rule is a non-zero exit code; the report is printed all the same.
    output = (cause as { stdout: string }).stdout
  }
  const { summary } = JSON.parse(output) as { summary: { violations: { from: string, rule: { name: string } }[] } }
  return summary.violations.map(({ from, rule }) => ({ from, rule: rule.name }))
}
