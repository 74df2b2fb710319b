// EST with clients that nobody here wrote: the README's scripts, and GlobalSign's estclient; then MQTT with what they got.
import { X509Certificate, randomBytes } from 'node:crypto'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Test } from 'tap'
import { ROOT, folder } from './processes.ts'
import { BEST_ENGINE } from './fleet.ts'
import { type ServiceProcess, onEachEngine, startLocalAws, startProduction, startService } from './service-process.ts'
import { type Ended, hasMosquitto, hasTool, keyAndCsr, mosquitto, publicKeyOf, tool } from './tools.ts'

t.setTimeout(900_000)

const recipe = (name: string) => new RegExp(`<!-- recipe: ${name} -->\\n\`\`\`sh\\n([^]*?)\`\`\``).exec(readFileSync(join(ROOT, 'README.md'), 'utf8'))?.[1] ?? 'exit 1'
const isMqtt = await hasMosquitto(t)
const hasEstclient = await hasTool(t, ['estclient', 'version'], 'Go: see .ci/estclient', 'enrolment by GlobalSign\'s estclient')

await onEachEngine(t, async (t, engine) => {
  const service = await startService(t, engine)
  const { host } = new URL(service.serviceUrl)

  await t.test('the README\'s est-enroll.sh and est-renew.sh: the certificate opens MQTT connections, and after its renewal no more', async t => {
    const dir = folder(t)
    const device = await service.register()
    writeFileSync(join(dir, 'device.json'), JSON.stringify(device))
    const env = { PATH: process.env['PATH'] ?? '', EST: `${service.serviceUrl}/.well-known/est`, CA: service.rootCa, DEVICE: 'device.json' }
    const run = async (name: string) => await tool('sh', ['-c', recipe(name)], undefined, { cwd: dir, env })
    t.match(await run('est-enroll'), { code: 0 })
    await works(t, service, device.serialNumber, join(dir, 'cert.pem'), join(dir, 'key.pem'))
    for (const name of ['cert.pem', 'key.pem']) copyFileSync(join(dir, name), join(dir, `old-${name}`))
    t.match(await run('est-renew'), { code: 0 })
    await works(t, service, device.serialNumber, join(dir, 'cert.pem'), join(dir, 'key.pem'))
    if (isMqtt) t.not((await publish(service, device.serialNumber, join(dir, 'old-cert.pem'), join(dir, 'old-key.pem'))).code, 0, 'the one before is let in no more')
  })

  await t.test('GlobalSign\'s estclient', { skip: hasEstclient ? false : 'no estclient on this machine' }, async t => {
    const { dir, serialNumber, registrationToken, keyFile } = await newDevice(t, service)
    const estclient = (command: string, ...more: string[]): Promise<Ended> =>
      tool('estclient', [command, '-server', host, '-explicit', service.rootCa, ...more], undefined, { cwd: dir })
    const basic = ['-user', serialNumber, '-pass', registrationToken]
    const roots = await estclient('cacerts', '-out', 'roots.pem')
    t.equal(roots.code, 0, roots.stderr)
    t.equal(new X509Certificate(readFileSync(join(dir, 'roots.pem'))).toString(), new X509Certificate(readFileSync(service.rootCa)).toString())
    t.match(await estclient('csrattrs'), { code: 0, stdout: '' }, 'no attributes are wanted')
    const refused = await estclient('enroll', '-user', serialNumber, '-pass', 'wrong', '-csr', 'device.csr', '-out', 'device.crt')
    t.match(refused, { code: 1, stderr: /do not match a device/ }, 'a wrong token is told in words')
    for (const file of ['device.crt', 'again.crt']) {
      const enrolled = await estclient('enroll', ...basic, '-csr', 'device.csr', '-out', file)
      t.equal(enrolled.code, 0, enrolled.stderr)
    }
    t.equal(readFileSync(join(dir, 'again.crt'), 'utf8'), readFileSync(join(dir, 'device.crt'), 'utf8'), 'the same again')
    await works(t, service, serialNumber, join(dir, 'device.crt'), keyFile)

    await keyAndCsr(dir, serialNumber, 'P-256', 'next')
    const pair = ['-certs', 'device.crt', '-key', 'device.key']
    const reenrolled = await estclient('reenroll', ...pair, '-csr', 'next.csr', '-out', 'next.crt')
    t.equal(reenrolled.code, 0, reenrolled.stderr)
    await works(t, service, serialNumber, join(dir, 'next.crt'), join(dir, 'next.key'))
    await keyAndCsr(dir, serialNumber, 'P-256', 'another')
    const late = await estclient('reenroll', ...pair, '-csr', 'another.csr', '-out', 'another.crt')
    t.match(late, { code: 1, stderr: /do not match a device/ }, 'the one before gets no other certificate')

    const generated = await newDevice(t, service)
    const made = await tool('estclient', [
      'serverkeygen', '-server', host, '-explicit', service.rootCa, '-user', generated.serialNumber, '-pass', generated.registrationToken,
      '-csr', 'device.csr', '-out', 'made.crt', '-keyout', 'made.key'
    ], undefined, { cwd: generated.dir })
    t.equal(made.code, 0, made.stderr)
    await works(t, service, generated.serialNumber, join(generated.dir, 'made.crt'), join(generated.dir, 'made.key'))
  })
})

const skip = hasEstclient ? false : 'no estclient on this machine'
await t.test('pending while AWS throttles: GlobalSign\'s estclient is told so, and gets it then', { skip }, async t => {
  const local = await startLocalAws(t, BEST_ENGINE, { LOCAL_FAULTS: '[{"operation":"CreateCertificateFromCsr","kind":"throttle","times":1}]' })
  const dir = folder(t)
  const [certFile, keyFile] = [join(dir, 'server.crt'), join(dir, 'server.key')]
  const made = await tool('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost',
    '-days', '1', '-keyout', keyFile, '-out', certFile
  ])
  t.equal(made.code, 0, made.stderr)
  const pepper = randomBytes(32).toString('base64')
  const service = await startProduction(t, local, { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile, TOKEN_PEPPER: pepper })
  const { serialNumber, registrationToken } = await local.register()
  await keyAndCsr(dir, serialNumber)
  const enroll = () => tool('estclient', [
    'enroll', '-server', new URL(service.serviceUrl).host, '-explicit', certFile, '-user', serialNumber, '-pass', registrationToken,
    '-csr', 'device.csr', '-out', 'device.crt'
  ], undefined, { cwd: dir })
  const pending = await enroll()
  t.match(pending, { code: 1, stderr: /AWS IoT is at its quota/ }, 'not yet')
  t.equal((await enroll()).code, 0, 'the same again')
})

async function newDevice (t: Test, service: ServiceProcess) {
  const dir = folder(t)
  const device = await service.register()
  return { dir, ...device, ...await keyAndCsr(dir, device.serialNumber) }
}

/** The certificate is for this key, ACTIVE, and opens an MQTT connection. */
async function works (t: Test, service: ServiceProcess, serialNumber: string, certFile: string, keyFile: string): Promise<void> {
  t.equal(await publicKeyOf({ certificate: readFileSync(certFile, 'utf8') }), await publicKeyOf({ keyFile }), 'for this key')
  if (!isMqtt) return
  const { code, stderr } = await publish(service, serialNumber, certFile, keyFile)
  t.equal(code, 0, `mosquitto_pub publishes ${stderr}`)
}

function publish (service: ServiceProcess, serialNumber: string, certFile: string, keyFile: string): Promise<Ended> {
  const files = { certFile, keyFile, caFile: service.rootCa, endpoint: new URL(service.mqttUrl).host }
  return mosquitto('mosquitto_pub', files, ['-i', serialNumber, '-t', `devices/${serialNumber}/hello`, '-q', '1', '-m', 'hello'])
}
