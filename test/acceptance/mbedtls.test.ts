// Firmware with mbedTLS: its own key and CSR by every way in (mbedTLS before 2.28.5 writes NULL parameters for ECDSA), then MQTT.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { cvm } from '../cli/command.ts'
import { BEST_ENGINE } from './fleet.ts'
import { ROOT, folder } from './processes.ts'
import { startService } from './service-process.ts'
import { type Vended, curl, hasMosquitto, mosquitto, storeVended, tool, vendBody } from './tools.ts'

t.setTimeout(900_000)

const untested = 'mbedTLS\'s CSRs, and mosquitto with their certificates'
const maker = join(folder(t), 'mbedtls-csr')
const built = await tool('cc', [join(ROOT, 'test/acceptance/mbedtls-csr.c'), '-o', maker, '-lmbedx509', '-lmbedcrypto'])
const missing = built.code === 0 ? false : `not tested, because its C program cannot be built here (Debian: gcc, libmbedtls-dev of 2.28): ${untested}`
if (missing) console.error(`${missing}\n${built.stderr}`)

await t.test('a key and a CSR by mbedTLS open MQTT connections', { skip: missing || (await hasMosquitto(t) ? false : 'no mosquitto') }, async t => {
  const service = await startService(t, BEST_ENGINE)
  const make = async (kind: 'ec' | 'rsa') => {
    const dir = folder(t)
    const device = await service.register()
    const { code, stdout, stderr } = await tool(maker, [kind, `CN=${device.serialNumber}`])
    const [key, csr] = stdout.split(/(?=-----BEGIN CERTIFICATE REQUEST)/)
    if (code !== 0 || !key || !csr) throw new Error(`mbedTLS made no CSR: ${stderr}`)
    const keyFile = join(dir, 'device.key')
    writeFileSync(keyFile, key, { mode: 0o600 })
    return { dir, device, keyFile, csr }
  }
  type Connection = Pick<Vended, 'certificatePem' | 'rootCaPem' | 'endpoint'>
  type Made = Awaited<ReturnType<typeof make>>
  const works = async ({ dir, device: { serialNumber }, keyFile }: Made, way: string, vended: Connection): Promise<void> => {
    const files = storeVended(dir, vended as Vended, keyFile)
    const published = await mosquitto('mosquitto_pub', files, ['-i', serialNumber, '-t', `devices/${serialNumber}/hello`, '-q', '1', '-m', 'hello'])
    t.equal(published.code, 0, `${way}: the device publishes ${published.stderr}`)
  }
  const post = async ({ device, csr }: Made): Promise<Vended> => {
    const { status, text } = await curl(`${service.serviceUrl}/v1/certificates`, { ca: service.rootCa, body: vendBody(device, csr) })
    if (status !== 201) throw new Error(`vending failed: ${text}`)
    return JSON.parse(text) as Vended
  }

  const ec = await make('ec')
  const vended = await post(ec)
  await works(ec, 'JSON, EC', vended)
  const rsa = await make('rsa')
  await works(rsa, 'JSON, RSA', await post(rsa))
  const { rootCaPem, endpoint } = vended

  const est = await make('ec')
  const headers = { 'content-type': 'application/pkcs10', authorization: `Basic ${Buffer.from(Object.values(est.device).join(':')).toString('base64')}` }
  const enrolled = await curl(`${service.serviceUrl}/.well-known/est/simpleenroll`, { ca: service.rootCa, body: est.csr, headers })
  if (enrolled.status !== 200) throw new Error(`enrolment failed: ${enrolled.text}`)
  const pkcs7 = `-----BEGIN PKCS7-----\n${enrolled.text.trim()}\n-----END PKCS7-----\n`
  await works(est, 'EST', { certificatePem: (await tool('openssl', ['pkcs7', '-print_certs'], pkcs7)).stdout, rootCaPem, endpoint })

  const onLine = await make('ec')
  writeFileSync(join(onLine.dir, 'device.csr'), onLine.csr)
  const requests = join(onLine.dir, 'requests.csv')
  writeFileSync(requests, `serialNumber,registrationToken,csrFile\n${Object.values(onLine.device).join()},device.csr\n`)
  const out = join(onLine.dir, 'out')
  const line = await cvm(['line', 'vend', requests, '--out', out], { env: { CVM_LOCAL_DIR: service.dir } })
  if (line.status !== 0) throw new Error(`cvm line vend failed: ${line.stdout}${line.stderr}`)
  const certificatePem = readFileSync(join(out, onLine.device.serialNumber, 'iot-certificate.pem.crt'), 'utf8')
  await works(onLine, 'line vend', { certificatePem, rootCaPem, endpoint })
})
