// The image as `npm run image` makes it, and a container of it as an orchestrator runs it: read-only, without rights, with no AWS in reach.
import { randomBytes } from 'node:crypto'
import t from 'tap'
import type { Test } from 'tap'
import { until } from '../fixtures/until.ts'
import { docker, hasDocker, must } from './docker.ts'
import { tool } from './tools.ts'

t.setTimeout(1_800_000)

/** Facts that a container says about itself, asked in JavaScript, for there is no shell. */
async function ask<T> (image: string, script: string): Promise<T> {
  return JSON.parse(await docker('run', '--rm', '--network', 'none', '--entrypoint', 'node', image, '--print', `JSON.stringify(${script})`)) as T
}

interface Entry { readonly mode: string, readonly owner: string, readonly modified: string, readonly path: string }

/** Every file in the image, without those that the engine puts into any container. */
async function filesOf (image: string): Promise<Entry[]> {
  const id = await docker('create', image)
  try {
    const list = await must('bash', ['-o', 'pipefail', '-c', `docker export ${id} | tar --list --verbose --numeric-owner --utc --full-time`])
    const entries = list.split('\n').map(line => /^(\S+) (\S+) +\d+ (\S+ \S+) (.*)$/.exec(line) ?? [])
    return entries.map(([, mode = '', owner = '', modified = '', path = '']) => ({ mode, owner, modified, path })).filter(({ path }) => /^(app|lib|lib64|usr|var)\//.test(path))
  } finally {
    await docker('rm', id)
  }
}

async function published (id: string, port: number): Promise<string> {
  return `http://${(await docker('port', id, String(port))).split('\n')[0]}`
}

// By curl: the engine takes connections before the container does, and there Node 20's fetch waits for ever.
const isReady = async (opsUrl: string): Promise<boolean> =>
  (await tool('curl', ['--silent', '--fail', '--noproxy', '*', '--max-time', '5', `${opsUrl}/readyz`])).code === 0

async function start (t: Test, image: string, ...args: string[]) {
  const began = performance.now()
  const id = await docker('run', '--detach', '--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges', '--health-interval', '1s',
    '--publish', '127.0.0.1:0:8443', '--publish', '127.0.0.1:0:9464', '--env', `TOKEN_PEPPER=${randomBytes(32).toString('base64')}`,
    '--env', 'AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:9', '--env', 'AWS_ENDPOINT_URL_IOT=http://127.0.0.1:9',
    '--env', 'AWS_ACCESS_KEY_ID=any', '--env', 'AWS_SECRET_ACCESS_KEY=key', ...args, image)
  t.teardown(() => docker('rm', '--force', '--volumes', id))
  const opsUrl = await published(id, 9464)
  if (!await until(() => isReady(opsUrl), 300_000)) throw new Error(`the container is not ready:\n${(await tool('docker', ['logs', id])).stdout}`)
  return { id, opsUrl, serviceUrl: await published(id, 8443), startedMs: Math.round(performance.now() - began) }
}

if (await hasDocker(t, 'the image: build, contents, start and end')) {
  const name = `cvm-test-${randomBytes(4).toString('hex')}`
  t.teardown(async () => {
    const tags = await docker('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}', name)
    await docker('image', 'rm', ...tags.split('\n'))
  })
  const began = performance.now()
  const image = await must('.ci/image', [name], { timeoutMs: 1_500_000 })
  t.comment(`${image}: built in ${Math.round(performance.now() - began)} ms`)

  await t.test('its tags and labels name version and revision', async t => {
    const { version } = JSON.parse(await must('cat', ['package.json'])) as { version: string }
    const [revision, committedAt] = [await must('git', ['rev-parse', 'HEAD']), Number(await must('git', ['log', '-1', '--format=%ct']))]
    const dirty = await must('git', ['status', '--porcelain']) === '' ? '' : '-dirty'
    t.equal(image, `${name}:${version}-${revision.slice(0, 12)}${dirty}`)
    t.equal(await docker('image', 'inspect', '--format', '{{.Id}}', `${name}:${version}`), await docker('image', 'inspect', '--format', '{{.Id}}', image))
    const [{ Config, Size }] = JSON.parse(await docker('image', 'inspect', image)) as [{ Config: Record<string, unknown>, Size: number }]
    t.match(Config, {
      User: '1000:1000',
      Entrypoint: ['node', '--enable-source-maps'],
      Healthcheck: { Test: ['CMD', 'node'] },
      Labels: {
        'org.opencontainers.image.version': version,
        'org.opencontainers.image.revision': revision + dirty,
        'org.opencontainers.image.created': new Date(committedAt * 1000).toISOString().replace('.000', '')
      }
    })
    t.comment(`${Math.round(Size / 1e6)} MB`)
  })

  await t.test('it holds what production needs, and nothing else', async t => {
    const files = await filesOf(image)
    const paths = files.map(({ path }) => path)
    const strangers = (pattern: RegExp) => paths.filter(path => pattern.test(path))
    t.ok(paths.includes('app/dist/server.js') && paths.includes('usr/local/bin/node'))
    t.strictSame(strangers(/\/(sh|bash|dash|busybox|apt|apt-get|dpkg|npm|npx|yarn|perl)$/), [], 'no shell, no package manager')
    t.strictSame(strangers(/^app\/(src|test|infra|\.)|^app\/dist\/local|\.d\.ts$/), [], 'no sources, tests or stand-ins')
    t.strictSame(files.filter(({ mode, path }) => path.startsWith('app/') && /^[-d].{7}w/.test(mode)).map(({ path }) => path), [], 'nobody may change it')
    t.strictSame(files.filter(({ mode }) => /s/.test(mode)).map(({ path }) => path), [], 'nothing runs as somebody else')
    t.strictSame(files.filter(({ owner }) => owner !== '0/0').map(({ path }) => path), [], 'all of it is root\'s')
    t.equal(new Set(files.map(({ modified }) => modified)).size, 1, 'every file has the time of the commit')
    t.match((await ask<string>(image, 'process.version')), /^v24\./)
  })

  await t.test('its SBOM names exactly the packages that are there', async t => {
    const there = await ask<string[]>(image, `fs.globSync('/app/node_modules/{**/node_modules/,}{*,@*/*}/package.json')
      .map(file => JSON.parse(fs.readFileSync(file))).filter(({ name, version }) => name && version).map(({ name, version }) => name + '@' + version)`)
    const sbom = await ask<{ bomFormat: string, components: { name: string, group?: string, version: string }[] }>(image, 'JSON.parse(fs.readFileSync(\'/app/sbom.cdx.json\'))')
    t.equal(sbom.bomFormat, 'CycloneDX')
    t.ok(there.length > 50)
    t.strictSame([...new Set(sbom.components.map(({ name, version }) => `${name}@${version}`))].sort(), [...new Set(there)].sort())
    const { packages } = JSON.parse(await must('cat', ['package-lock.json'])) as { packages: Record<string, { dev?: boolean }> }
    const names = new Set(sbom.components.map(({ name }) => name))
    const nameOf = (path: string) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)
    const needed = new Set(Object.entries(packages).filter(([, { dev }]) => !dev).map(([path]) => nameOf(path)))
    const development = Object.keys(packages).map(nameOf).filter(name => name !== '' && !needed.has(name))
    t.ok(development.length > 100)
    t.strictSame(development.filter(name => names.has(name)), [], 'no development packages')
  })

  await t.test('it starts, says so, answers, and ends when it is told to', async t => {
    const { id, opsUrl, serviceUrl, startedMs } = await start(t, image)
    const { State } = (JSON.parse(await docker('inspect', id)) as [{ State: { StartedAt: string } }])[0]
    const logs = await docker('logs', id)
    const listening = JSON.parse(logs.split('\n').find(line => line.includes('"msg":"listening"'))!) as { time: number }
    t.comment(`docker run to ready: ${startedMs} ms; process to listening: ${listening.time - Date.parse(State.StartedAt)} ms`)
    t.match(await (await fetch(`${opsUrl}/livez`)).json(), { status: 'alive' })
    const health = await fetch(`${opsUrl}/healthz`)
    t.match([health.status, await health.json()], [503, { dependencies: { dynamodb: 'down', 'aws-iot': 'down' } }], 'there is no AWS here')
    const answer = await fetch(`${serviceUrl}/v1/certificates`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' })
    t.match([answer.status, await answer.json()], [400, { code: 'invalid-request' }])
    t.ok(await until(async () => await docker('inspect', '--format', '{{.State.Health.Status}}', id) === 'healthy', 300_000), 'the image\'s own check finds it healthy')
    const stopping = performance.now()
    await docker('stop', '--time', '30', id)
    t.equal(await docker('inspect', '--format', '{{.State.ExitCode}}', id), '0', `ended after ${Math.round(performance.now() - stopping)} ms, by itself`)
  })

  await t.test('told to stop before it has begun, it ends at once', async t => {
    const id = await docker('run', '--detach', '--init', '--env', `TOKEN_PEPPER=${randomBytes(32).toString('base64')}`, image)
    t.teardown(() => docker('rm', '--force', '--volumes', id))
    await docker('stop', '--time', '30', id)
    t.equal(await docker('inspect', '--format', '{{.State.ExitCode}}', id), '143', 'by SIGTERM, not by the SIGKILL that follows')
    t.notMatch((await tool('docker', ['logs', id])).stdout, 'listening')
  })

  await t.test('the command line is in it too', async t => {
    t.match(await docker('run', '--rm', '--read-only', image, 'dist/cli/main.js', 'keys', 'create', '--name', 'ada', '--role', 'operator'), /^key +cvm_/m)
    const { code, stderr } = await tool('docker', ['run', '--rm', '--env', 'CVM_LOCAL=true', image])
    t.match([code, stderr], [2, /CVM_LOCAL must not be true/], 'local mode does not run in it')
  })
}
