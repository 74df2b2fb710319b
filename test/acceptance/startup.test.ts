// How the service starts, or says why it does not.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import type { Test } from 'tap'
import { openssl } from '../fixtures/openssl.ts'
import { isWhole } from '../fixtures/proof-size.ts'
import { LOCAL_AWS, SERVER, folder, run } from './processes.ts'
import { AWS_ENV, FREE_PORTS, onEachEngine, startLocalAws, startProduction } from './service-process.ts'
import { type Vended, curl, keyAndCsr, vendBody } from './tools.ts'

t.setTimeout(900_000)

const newPepper = () => randomBytes(32).toString('base64')

/** Starts the service where it must not start, and returns what it says. */
async function refusal (t: Test, env: Record<string, string>): Promise<string[]> {
  const { exit, output } = await run(t, [SERVER], { ...FREE_PORTS, CVM_LOCAL_DIR: folder(t), ...env })
  t.equal(exit, 2, 'exit code 2: misconfigured')
  t.notMatch(output, /^ +at /m, 'no stack trace')
  t.notMatch(output, '"msg":"listening"')
  return output.trim().split('\n')
}

await t.test('a port that is taken: the message names the setting', async t => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  const port = String((other.address() as AddressInfo).port)
  // The local AWS is asked for each of its own by test/local/start.test.ts.
  for (const setting of isWhole ? Object.keys(FREE_PORTS) : ['PORT', 'LOCAL_MQTT_PORT']) {
    await t.test(setting, async t => {
      const said = await refusal(t, { [setting]: port, LOG_LEVEL: 'fatal' })
      const line = said.find(line => line.includes(setting)) ?? ''
      t.match(line, port)
      t.match(line, 'is taken')
      t.match(line, new RegExp(`set ${setting} to `), line)
      t.ok(said.length <= 3, 'in so many words')
    })
  }
})

await t.test('every fault of the configuration at once, each with what is allowed', async t => {
  const said = await refusal(t, {
    PORT: 'https',
    OPS_PORT: '70000',
    LOG_LEVEL: 'loud',
    CVM_LOCAL: 'maybe',
    TOKEN_PEPPER: 'c2hvcnQ=',
    TLS_CERT_FILE: '/no/such/file',
    TRUST_PROXY_CIDRS: '10.0.0.0/8, everybody',
    CLAIM_LIFETIME_MS: '1000',
    RATE_LIMIT_SERIAL_MAX: '0'
  })
  const faults = ['PORT must', 'OPS_PORT must', 'LOG_LEVEL must be one of fatal', 'CVM_LOCAL must', 'TOKEN_PEPPER must', 'TLS_CERT_FILE and TLS_KEY_FILE must',
    'TLS_CERT_FILE must', 'TRUST_PROXY_CIDRS must', 'CLAIM_LIFETIME_MS must', 'RATE_LIMIT_SERIAL_MAX must']
  for (const fault of faults) t.ok(said.some(line => line.trim().startsWith(fault)), fault)
  t.equal(said.length, faults.length + 1, said.join('\n'))
  t.match(said[0], `${faults.length} faults`)
  t.notMatch(said.join('\n'), 'c2hvcnQ', 'a secret is not repeated')
})

await t.test('production: needs a pepper, refuses local mode', async t => {
  const production = { ...AWS_ENV, NODE_ENV: 'production' }
  t.match(await refusal(t, production), [/1 fault/, /TOKEN_PEPPER must be the base64 of at least 32 random bytes/])
  t.match(await refusal(t, { ...production, TOKEN_PEPPER: randomBytes(31).toString('base64') }), [/1 fault/, /TOKEN_PEPPER/], 'a shorter one is no pepper')
  t.match(await refusal(t, { ...production, TOKEN_PEPPER: newPepper(), CVM_LOCAL: 'true' }), [/1 fault/, /CVM_LOCAL must not be true/])
})

await t.test('the local AWS refuses production too', async t => {
  const { exit, output } = await run(t, [LOCAL_AWS], { ...FREE_PORTS, CVM_LOCAL_DIR: folder(t), NODE_ENV: 'production' })
  t.equal(exit, 1)
  t.match(output, 'NODE_ENV=production')
})

await t.test('without its table the service ends, and says which and how to make it', async t => {
  const aws = await startLocalAws(t, { name: 'dynalite' })
  const output = await refusal(t, {
    ...AWS_ENV, NODE_ENV: 'production', HOST: '127.0.0.1', TOKEN_PEPPER: newPepper(), DEVICE_TABLE: 'not-made-yet', AWS_ENDPOINT_URL_DYNAMODB: aws.dynamodbUrl, AWS_ENDPOINT_URL_IOT: aws.iotUrl
  })
  t.match(output.find(line => line.startsWith('  ')), /^ *The table not-made-yet in \S+ does not exist: .*Apply infra\/registry\.tf \(aws_dynamodb_table\.devices\)/)
})

await onEachEngine(t, async (t, engine) => {
  const aws = await startLocalAws(t, engine)
  const dir = folder(t)
  const TOKEN_PEPPER = newPepper()
  let first = ''
  const device = { serialNumber: 'sn-of-production', registrationToken: randomBytes(32).toString('base64url') }
  const { csr } = await keyAndCsr(dir, device.serialNumber)

  await t.test('production mode on given AWS endpoints, over plain HTTP behind a balancer', async t => {
    const service = await startProduction(t, aws, { TOKEN_PEPPER })
    t.match(service.serviceUrl, /^http:/)
    await aws.register(device)
    const answer = await curl(`${service.serviceUrl}/v1/certificates`, { body: vendBody(device, csr) })
    t.equal(answer.status, 201)
    first = answer.text
    t.match(JSON.parse(first) as Vended, { rootCaPem: readFileSync(aws.rootCa, 'utf8').trim(), endpoint: /^localhost/ })
    const health = await curl(`${service.opsUrl}/healthz`)
    t.match([health.status, JSON.parse(health.text)], [200, { dependencies: { dynamodb: 'up', 'aws-iot': 'up' } }])
    t.equal(await service.stop(), 0)
  })

  await t.test('the next task, over TLS with a certificate of its own: the same answer', async t => {
    const [cert, key] = [join(dir, 'server.crt'), join(dir, 'server.key')]
    await openssl(['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-keyout', key, '-out', cert,
      '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'])
    const service = await startProduction(t, aws, { TOKEN_PEPPER, TLS_CERT_FILE: cert, TLS_KEY_FILE: key })
    t.match(service.serviceUrl, /^https:/)
    const answer = await curl(`${service.serviceUrl}/v1/certificates`, { ca: cert, body: vendBody(device, csr) })
    t.equal(answer.status, 200)
    t.equal(answer.text, first, 'byte-identical, though another process gives it')
    t.equal((await aws.certificates()).length, 1)
  })
})
