// `cvm` as a person types it, against the built service; openssl judges the files it leaves.
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { cvm as hosted } from '../cli/command.ts'
import { openssl } from '../fixtures/openssl.ts'
import { CLI, folder, run } from './processes.ts'
import { onEachEngine, startService } from './service-process.ts'
import { publicKeyOf } from './tools.ts'

t.setTimeout(900_000)

const FILES = { 'iot-certificate.pem.crt': 0o644, 'iot-private.pem.key': 0o600, 'iot-root-ca.crt': 0o644 }

await onEachEngine(t, async (t, engine) => {
  const service = await startService(t, engine)
  const dir = folder(t)
  const env = { CVM_LOCAL_DIR: service.dir }
  /** Runs `cvm` where the local service is found by its folder. */
  const cvm = async (...args: string[]) => {
    const { status, stdout, stderr } = await hosted(args, { env })
    return { exit: status, output: stdout + stderr }
  }
  const deviceFile = (name: string, device: object) => {
    writeFileSync(join(dir, name), JSON.stringify(device), { mode: 0o600 })
    return join(dir, name)
  }
  const sample = join(service.dir, 'demo-device.json')
  const out = join(dir, 'my-device')

  await t.test('device enroll: three files, the key for its owner alone', async t => {
    const { exit, output } = await cvm('device', 'enroll', '--device-file', sample, '--out', out)
    t.match({ exit, output }, { exit: 0 })
    t.match(output, '(new)')
    for (const [name, mode] of Object.entries(FILES)) t.equal(statSync(join(out, name)).mode & 0o777, mode, `${name} has mode ${mode.toString(8)}`)
    t.equal(statSync(out).mode & 0o777, 0o700)
    t.strictSame(readdirSync(out).filter(name => name.endsWith('.tmp')), [])
    const certificate = readFileSync(join(out, 'iot-certificate.pem.crt'), 'utf8')
    t.equal(await publicKeyOf({ certificate }), await publicKeyOf({ keyFile: join(out, 'iot-private.pem.key') }), 'key and certificate belong together')
    t.equal((await openssl(['x509', '-noout', '-subject'], certificate)).stdout, `subject=CN = ${JSON.parse(readFileSync(sample, 'utf8')).serialNumber}\n`)
    t.equal(readFileSync(join(out, 'iot-root-ca.crt'), 'utf8').trim(), readFileSync(service.rootCa, 'utf8').trim())
  })

  await t.test('the commands that the service prints at its start work as they stand', async t => {
    const printed = [...service.output().matchAll(/^ +npm run cvm -- (.+)$/gm)].map(([, line = '']) => line.replace('my-device', out).split(' '))
    t.equal(printed.length, 4)
    for (const args of printed) {
      const { exit, output } = await run(t, [CLI, ...args], env)
      t.match({ exit, output }, { exit: 0 }, `cvm ${args.join(' ')}`)
    }
  })

  await t.test('device connect: over MQTT, acknowledged', async t => {
    const { exit, output } = await cvm('device', 'connect', '--dir', out)
    t.match({ exit, output }, { exit: 0 })
    t.match(output, /published to +devices\/\S+\/hello, acknowledged/)
    const other = await cvm('device', 'connect', '--dir', out, '--client-id', 'somebody-else')
    t.match(other, { exit: 3 }, 'under another client id it is refused')
  })

  await t.test('verify: ok with its own key, not with another', async t => {
    const [certificate, key] = [join(out, 'iot-certificate.pem.crt'), join(out, 'iot-private.pem.key')]
    const { exit, output } = await cvm('verify', certificate, '--key', key)
    t.match({ exit, output }, { exit: 0 })
    t.match(output, /private key +ok: /)
    t.match(output, 'Amazon Web Services')
    const otherKey = join(dir, 'other.key')
    await openssl(['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', otherKey])
    t.equal((await cvm('verify', certificate, '--key', otherKey)).exit, 1)
    t.equal((await cvm('verify', join(out, 'iot-root-ca.crt'), '--ca', service.rootCa)).exit, 0, 'a chain that is there is checked')
    t.equal((await cvm('verify', certificate, '--ca', service.rootCa)).exit, 1)
  })

  await t.test('a second enroll is a replay: nothing changes', async t => {
    const before = Object.keys(FILES).map(name => readFileSync(join(out, name), 'utf8'))
    const { exit, output } = await cvm('device', 'enroll', '--device-file', sample, '--out', out)
    t.match({ exit, output }, { exit: 0 })
    t.match(output, '(the same as before)')
    t.strictSame(Object.keys(FILES).map(name => readFileSync(join(out, name), 'utf8')), before)
    t.equal((await service.certificates()).length, 1, 'AWS IoT holds one certificate')
  })

  await t.test('RSA key, and a key made by the service', async t => {
    for (const [i, option] of [['--key-type', 'rsa'], ['--keys-by-service']].entries()) {
      const target = join(dir, `device-${i}`)
      const { exit, output } = await cvm('device', 'enroll', '--device-file', deviceFile(`${i}.json`, await service.register()), '--out', target, '--timeout', '20', ...option)
      t.match({ exit, output }, { exit: 0 })
      t.equal(statSync(join(target, 'iot-private.pem.key')).mode & 0o777, 0o600)
      t.equal((await cvm('device', 'connect', '--dir', target)).exit, 0, 'and it connects')
    }
  })

  await t.test('refused: exit code 3, one clear message, no certificate', async t => {
    const device = await service.register()
    const cases: [string, object, string][] = [
      ['wrong token', { ...device, registrationToken: 'not-the-token-of-this-device' }, 'device-not-authorized'],
      ['unknown device', { ...device, serialNumber: 'nobody' }, 'device-not-authorized'],
      ['vended with another key', JSON.parse(readFileSync(sample, 'utf8')), 'already-vended']
    ]
    for (const [i, [what, credentials, code]] of cases.entries()) {
      const target = join(dir, `refused-${i}`)
      const { exit, output } = await cvm('device', 'enroll', '--device-file', deviceFile('refused.json', credentials), '--out', target)
      t.match({ exit, output }, { exit: 3 }, what)
      t.match(output, code)
      t.notMatch(output, 'not-the-token-of-this-device')
      t.notMatch(output, /^ +at /m, 'no stack trace')
      t.strictSame(readdirSync(target).filter(name => name.endsWith('.crt')), [])
    }
  })

  await t.test('wrong usage: exit code 2; a service that is away: 4', async t => {
    t.equal((await cvm('device', 'enroll')).exit, 2)
    t.equal((await cvm('no-such-command')).exit, 2)
    const away = await cvm('device', 'enroll', '--url', 'https://127.0.0.1:1', '--device-file', sample, '--out', join(dir, 'away'), '--timeout', '1')
    t.match(away, { exit: 4 })
  })
})
