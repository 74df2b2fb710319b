// The script of the post on the old service (seed 000), as its users have it, at our /getcert: curl and jq make three files, and
// mosquitto_pub connects with them. And the post's two requests for the shadow.
import { chmodSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ROOT, folder } from './processes.ts'
import { AWS_ENV, onEachEngine, startService } from './service-process.ts'
import { CUT_OFF, hasTool, mosquitto, tool } from './tools.ts'

t.setTimeout(900_000)

/** What it does, in words of our own: no check of the status, nothing quoted, PEM by `sed`. */
const SCRIPT = `#!/bin/bash
answer=$(curl $1)
save () { echo -n $(echo $answer | jq "$1") | sed 's/\\\\n/\\n/g' | sed 's/"//g' > certs/$2; }
save .certificatePem iot-certificate.pem.crt
save .keyPair.PrivateKey iot-private.pem.key
save .RootCA iot-root-ca.crt
`

let hasAll = true
for (const [file, ...args] of [['curl', '--version'], ['jq', '--version'], ['mosquitto_pub', '--help']] as const) {
  hasAll &&= await hasTool(t, [file, ...args], 'Debian: curl, jq, mosquitto-clients', 'the script of the old service at /getcert')
}

if (hasAll) {
  await onEachEngine(t, async (t, engine) => {
    const dir = folder(t)
    const service = await startService(t, engine, { LEGACY_CVM: 'true' })
    const { serialNumber, registrationToken: deviceToken } = await service.register({ serialNumber: 'devopstar-iot-01', registrationToken: '1234567890' })
    const url = (path: string) => `${service.serviceUrl}/${path}?serialNumber=${serialNumber}&deviceToken=${deviceToken}`
    const script = join(dir, 'create_certs.sh')
    writeFileSync(script, SCRIPT)
    chmodSync(script, 0o755)
    const env = { PATH: process.env['PATH'] ?? '', CURL_CA_BUNDLE: service.rootCa, NO_PROXY: '*', ...AWS_ENV }
    const sh = async (command: string) => await tool('bash', ['--norc', '-c', command], '', { cwd: dir, env })
    const file = (name: string) => join(dir, 'certs', name)
    const files = { certFile: file('iot-certificate.pem.crt'), keyFile: file('iot-private.pem.key'), caFile: file('iot-root-ca.crt') }

    await t.test('three files, and an MQTT connection with them', async t => {
      t.match(await sh(`mkdir certs && ./create_certs.sh "${url('getcert')}"`), { code: 0 })
      t.strictSame(readdirSync(join(dir, 'certs')).sort(), ['iot-certificate.pem.crt', 'iot-private.pem.key', 'iot-root-ca.crt'])
      const [key, certificate] = await Promise.all([`pkey -in ${files.keyFile} -pubout`, `x509 -in ${files.certFile} -noout -pubkey`].map(args => sh(`openssl ${args}`)))
      t.equal(key?.stdout, certificate?.stdout, 'openssl: key and certificate belong together')
      const device = { ...files, endpoint: new URL(service.mqttUrl).host }
      const publish = async (topic: string) => await mosquitto('mosquitto_pub', device, ['-i', serialNumber, '-t', topic, '-q', '1', '-m', 'hello'])
      t.match(await publish(`devices/${serialNumber}/hello`), { code: 0 }, 'mosquitto_pub is acknowledged')
      t.match(await publish('devices/another/hello'), { stderr: CUT_OFF }, 'and may do no more than its policy says, where the old one gave it everything')
    })

    await t.test('again: nothing new, and what there is goes on working', async t => {
      const before = await service.certificates()
      const again = await sh(`curl --silent --output again.txt --write-out '%{http_code} %{content_type}' "${url('getcert')}"`)
      t.equal(again.stdout, '500 text/plain')
      t.equal(readFileSync(join(dir, 'again.txt'), 'utf8'), 'Error issuing certificate!')
      t.strictSame(await service.certificates(), before)
    })

    await t.test('the shadow by curl, as the post has it', async t => {
      t.strictSame(await jsonOf(`curl --silent --show-error --fail -d '{"deviceAttribute":"CVM"}' -X PUT "${url('shadow')}"`), { deviceAttribute: 'CVM' })
      t.strictSame(await jsonOf(`curl --silent --show-error --fail -X GET "${url('shadow')}"`), {}, 'nothing is reported yet')
      const device = { ...files, endpoint: new URL(service.mqttUrl).host }
      const reported = JSON.stringify({ state: { reported: { deviceAttribute: 'CVM', deviceToken: 'x' } } })
      const topic = `$aws/things/${serialNumber}/shadow/update`
      t.match(await mosquitto('mosquitto_pub', device, ['-i', serialNumber, '-t', topic, '-q', '1', '-m', reported]), { code: 0 }, 'the device reports over MQTT')
      t.strictSame(await jsonOf(`curl --silent --show-error --fail -X GET "${url('shadow')}"`), { deviceAttribute: 'CVM' })
    })

    await t.test('the README\'s getcert.sh, for the sample device', async t => {
      const [, script = ''] = /<!-- recipe: old-client -->\n```sh\n([^]*?)```/.exec(readFileSync(join(ROOT, 'README.md'), 'utf8')) ?? []
      t.match(script, 'https://localhost:8443', 'the README has it')
      symlinkSync(service.dir, join(dir, '.cvm'))
      t.match(await sh(`URL=${service.serviceUrl}\n${script}`), { code: 0 })
      t.match(await sh('openssl x509 -in iot-certificate.pem.crt -noout -pubkey > public && openssl pkey -in iot-private.pem.key -pubout | cmp - public'), { code: 0 })
      t.equal(readFileSync(join(dir, 'iot-root-ca.crt'), 'utf8').trim(), readFileSync(service.rootCa, 'utf8').trim())
    })

    await t.test('the token is in no line of the log', async t => {
      t.equal(await service.stop(), 0)
      t.match(service.output(), '"route":"/getcert"')
      t.notMatch(service.output(), deviceToken)
    })

    async function jsonOf (command: string): Promise<unknown> {
      const { code, stdout, stderr } = await sh(command)
      if (code !== 0) throw new Error(`${command} ended with ${code}: ${stderr}`)
      return JSON.parse(stdout)
    }
  })
}
