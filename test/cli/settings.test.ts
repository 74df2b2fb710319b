import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { cvm } from './command.ts'
import { Authority } from './openssl-authority.ts'
import { scriptedService } from './scripted-service.ts'

t.setTimeout(900_000)

const authority = new Authority(t, 'Root of the service')
const EMPTY = { status: 200, body: { devices: [] } }
const list = (args: string[], env: Record<string, string>) => cvm(['operator', 'list', ...args], { env })

function secret (folder: string, name: string, content: string): string {
  const file = join(folder, name)
  writeFileSync(file, content, { mode: 0o600 })
  return file
}

await t.test('an option goes before the environment, that before the file, that before the local folder', async t => {
  const names = ['option', 'environment', 'file', 'local'] as const
  const [option, environment, file, local] = await Promise.all(names.map(() => scriptedService(t, [EMPTY])))
  const folder = t.testdir()
  const config = secret(folder, 'config.json', JSON.stringify({ url: file!.url.href, keyFile: 'file.key' }))
  const [fromOption, fromFile, fromEnvironment] = ['option', 'file', 'environment'].map(name => secret(folder, `${name}.key`, `key-of-${name}\n`))
  secret(folder, 'operator.key', 'key-of-local')
  secret(folder, 'endpoints.json', JSON.stringify({ serviceUrl: local!.url.href, mqttUrl: 'mqtts://localhost:1' }))
  const env = { CVM_LOCAL_DIR: folder }
  const outcomes = [
    await list([], env),
    await list([], { ...env, CVM_CONFIG: config }),
    await list([], { ...env, CVM_CONFIG: config, CVM_URL: environment!.url.href, CVM_KEY_FILE: fromEnvironment! }),
    await list([], { ...env, CVM_CONFIG: config, CVM_KEY_FILE: fromFile!, CVM_API_KEY: 'key-itself' }),
    await list(['--url', option!.url.href, '--key-file', fromOption!], { ...env, CVM_CONFIG: config, CVM_URL: environment!.url.href, CVM_API_KEY: 'key-itself' })
  ]
  t.strictSame(outcomes.map(({ status, stderr }) => [status, stderr]), outcomes.map(() => [0, '']))
  const keys = [local, file, environment, option].map(service => service!.headers.map(({ authorization }) => authorization))
  t.strictSame(keys, [['Bearer key-of-local'], ['Bearer key-of-file', 'Bearer key-itself'], ['Bearer key-of-environment'], ['Bearer key-of-option']])
})

await t.test('~/.config/cvm/config.json is found, its paths start at its folder; XDG_CONFIG_HOME moves it', async t => {
  const service = await scriptedService(t, [EMPTY], authority.issueServer())
  const home = t.testdir()
  const folder = join(home, '.config', 'cvm')
  mkdirSync(folder, { recursive: true })
  secret(folder, 'ca.pem', authority.certificate)
  secret(folder, 'key', 'an.oidc.token')
  secret(folder, 'config.json', JSON.stringify({ url: service.url.href, ca: 'ca.pem', keyFile: '~/.config/cvm/key' }))
  t.match(await list([], { HOME: home, XDG_CONFIG_HOME: '' }), { status: 0, stderr: '' })
  t.match(await list([], { HOME: home, XDG_CONFIG_HOME: join(home, '.config') }), { status: 0, stderr: '' })
  t.equal(service.headers[1]?.authorization, 'Bearer an.oidc.token')
  const other = secret(home, 'other.json', JSON.stringify({ ca: 'missing.pem' }))
  const env = { CVM_CONFIG: other, CVM_URL: service.url.href, CVM_CA: join(folder, 'ca.pem'), CVM_API_KEY: 'k' }
  t.match(await list([], env), { status: 0 }, 'CVM_CA goes before the file')
})

await t.test('a file that is wrong: exit code 2, named, not quoted', async t => {
  const cases = {
    'is not valid JSON': '{"keyFile":"secret',
    'is not a JSON object': '["secret"]',
    'not known: apiKey': '{"apiKey":"secret"}',
    'must have text in url, ca': '{"url":1,"ca":"","keyFile":"secret"}'
  }
  const folder = t.testdir()
  for (const [message, content] of Object.entries(cases)) {
    const file = secret(folder, 'config.json', content)
    const { status, stderr } = await list([], { CVM_CONFIG: file })
    t.equal(status, 2, message)
    t.match(stderr, message)
    t.match(stderr, file)
    t.notMatch(stderr, 'secret')
  }
  t.match(await list([], { CVM_CONFIG: join(folder, 'missing.json') }), { status: 2, stderr: 'missing.json cannot be read' })
})

await t.test('a key that others can read is warned about; so is the file that names it', async t => {
  const service = await scriptedService(t, [EMPTY])
  const folder = t.testdir()
  const key = secret(folder, 'key', 'k')
  const config = secret(folder, 'config.json', JSON.stringify({ url: service.url.href, keyFile: 'key' }))
  for (const file of [key, config]) chmodSync(file, 0o644)
  const { status, stderr } = await list([], { CVM_CONFIG: config })
  t.equal(status, 0)
  t.strictSame(stderr.trim().split('\n'), [config, key].map(file => `warning: ${file} can be read by other users; chmod 600 ${file}`))
})

await t.test('the local key is for this machine only', async t => {
  const folder = t.testdir()
  secret(folder, 'operator.key', 'key-of-local')
  t.match(await list(['--url', 'https://cvm.invalid'], { CVM_LOCAL_DIR: folder }), { status: 2, stderr: 'the API key is missing' })
})
