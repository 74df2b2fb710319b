// G8: after a whole story, with the log at its most talkative, no secret is in what the service wrote, shows or stores.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Agent, request } from 'node:https'
import { GetThingShadowCommand } from '@aws-sdk/client-iot-data-plane'
import t from 'tap'
import { folder } from './processes.ts'
import { type Device, type ServiceProcess, onEachEngine, startService } from './service-process.ts'
import { type HttpAnswer, type Vended, curl, keyAndCsr, vendBody } from './tools.ts'

t.setTimeout(900_000)

/** Something that must not be found, in every spelling in which it could be. */
class Secrets {
  readonly #texts = new Map<string, string>()

  add (name: string, text: string): void {
    this.#texts.set(name, text)
    this.#texts.set(`${name}, percent-encoded`, encodeURIComponent(text))
    this.#texts.set(`${name}, in base64`, Buffer.from(text).toString('base64').replace(/=+$/, ''))
    this.#texts.set(`${name}, in hex`, Buffer.from(text).toString('hex'))
  }

  addBytes (name: string, bytes: Buffer): void {
    for (const encoding of ['base64', 'base64url', 'hex', 'latin1'] as const) this.#texts.set(`${name} in ${encoding}`, bytes.toString(encoding))
    this.#texts.set(`${name} as a list of bytes`, bytes.join(','))
  }

  /** Each line of an RSA key's base64 body, but for the seven that hold the modulus, which is public. */
  addKey (name: string, pem: string): void {
    const lines = pem.split('\n').filter(line => line !== '' && !line.startsWith('-')).slice(7)
    if (lines.length < 15) throw new Error(`${name} is shorter than an RSA key`)
    for (const [i, line] of lines.entries()) this.#texts.set(`${name}, line ${i + 8}`, line)
    this.#texts.set(`${name}, header`, 'PRIVATE KEY')
  }

  get size (): number {
    return this.#texts.size
  }

  foundIn (haystack: string): string[] {
    return [...this.#texts].filter(([, text]) => haystack.includes(text)).map(([name]) => name)
  }
}

/** Whatever a caller may send with a secret in the wrong place: each is refused, none may be repeated. */
async function misplace (service: ServiceProcess, { serialNumber, registrationToken: token }: Device, csr: string): Promise<HttpAnswer[]> {
  const certificates = `${service.serviceUrl}/v1/certificates`
  const bodies = [
    `{"serialNumber":"${serialNumber}","registrationToken":"${token}","certificateSigningRequest":"${token}"}`,
    `{"serialNumber":"${token} ","registrationToken":"${token}","certificateSigningRequest":"x"}`,
    `{"serialNumber":"${serialNumber}","registrationToken":["${token}"],"certificateSigningRequest":"x"}`,
    `{"serialNumber":"${serialNumber}","registrationToken":{"${token}":"${token}"}}`,
    JSON.stringify({ serialNumber, registrationToken: token, certificateSigningRequest: csr, deviceToken: token, token: { token } }),
    `{"serialNumber":"${serialNumber}","registrationToken":"${token}"`,
    `${token}`,
    `"${token}"`,
    `{"__proto__":{"token":"${token}"},"registrationToken":"${token}"}`,
    JSON.stringify({ serialNumber, registrationToken: token.repeat(20), certificateSigningRequest: csr }),
    JSON.stringify({ serialNumber, registrationToken: token, certificateSigningRequest: csr.replace('REQUEST-----', `REQUEST-----\nX-Token: ${token}\n`) }),
    JSON.stringify({ serialNumber, registrationToken: token, padding: token.repeat(300) })
  ]
  const answers: HttpAnswer[] = []
  for (const body of bodies) answers.push(await curl(certificates, { ca: service.rootCa, body }))
  const encoded = encodeURIComponent(token)
  const elsewhere: [string, object][] = [
    [`/v1/certificates?registrationToken=${encoded}`, {}],
    [`/v1/certificates/${encoded}`, { method: 'DELETE' }],
    [`/v1/certificates/${encoded}/%`, {}],
    [`/${encoded.repeat(300)}`, {}],
    ['/v1/certificates', { body: '{}', headers: { 'content-type': `text/${token}` } }],
    ['/v1/certificates', { body: '{}', headers: { authorization: `Bearer ${token}`, cookie: `token=${token}`, accept: token, 'user-agent': token } }],
    ['/v1/certificates', { body: '{}', headers: { 'content-encoding': token } }],
    ['/v1/certificates', { body: '{}', headers: { 'x-forwarded-for': token, referer: `https://x/?${token}` } }],
    ['/v1/certificates', { body: '{}', headers: { expect: token } }],
    ['/v1/certificates', { body: '{}', headers: { 'x-big': token.repeat(500) } }],
    ['/v1/certificates', { body: token, method: token.replace(/[^A-Za-z]/g, '') }]
  ]
  for (const [path, options] of elsewhere) answers.push(await curl(service.serviceUrl + path, { ca: service.rootCa, ...options }))
  return answers
}

/** Everything that firmware of the old services may ask, right and wrong, with its token in the URL. */
async function askAsOldClient (service: ServiceProcess, device: Device, wrong: string): Promise<HttpAnswer[]> {
  const query = (token: string) => `?serialNumber=${device.serialNumber}&deviceToken=${encodeURIComponent(token)}`
  const right = query(device.registrationToken)
  const put = { method: 'PUT', body: JSON.stringify({ deviceToken: device.registrationToken, on: true }) }
  const asked: [string, object][] = [
    [`/getcert${right}`, {}], [`/getcert${right}`, {}], [`/getcert${query(wrong)}`, {}], [`/getcert${right}&deviceToken=${wrong}`, {}],
    [`/getcert/${right}`, {}], [`/GETCERT${right}`, {}], [`/getcert%20${right}`, {}], [`/getcert%${right}`, {}],
    [`/getcert${right}`, { method: 'POST' }], [`/getcert${right}`, { method: 'PURGE' }],
    [`/getcert${right}${'&padding=x'.repeat(2_000)}`, {}], [`/getcert${query(device.registrationToken.repeat(50))}`, {}],
    [`/shadow${right}`, {}], [`/shadow${query(wrong)}`, {}], [`/shadow${right}`, put], [`/shadow${query(wrong)}`, put],
    [`/shadow${right}`, { method: 'PUT', body: JSON.stringify({ note: device.registrationToken }) }],
    [`/shadow${right}`, { method: 'PUT', body: device.registrationToken }], [`/shadow${right}`, { method: 'DELETE' }],
    [`/v1/certificates${right}`, {}], [`/v1/devices/x/shadow${right}`, {}], [`/v1/devices/${encodeURIComponent(wrong)}/shadow${right}`, {}]
  ]
  const answers: HttpAnswer[] = []
  for (const [path, options] of asked) answers.push(await curl(service.serviceUrl + path, { ca: service.rootCa, ...options }))
  return answers
}

/** A request that the HTTP parser itself refuses. */
function unreadable (service: ServiceProcess, token: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const agent = new Agent({ ca: readFileSync(service.rootCa) })
    const sending = request(service.serviceUrl, { agent, method: 'POST', headers: { 'transfer-encoding': 'chunked' } })
    sending.on('response', response => { response.resume().on('end', resolve) }).on('error', reject)
    sending.once('socket', socket => socket.once('secureConnect', () => socket.write(`${token}\r\n${token}\r\n\r\n`)))
    sending.flushHeaders()
  })
}

await onEachEngine(t, async (t, engine) => {
  const pepper = randomBytes(32)
  const service = await startService(t, engine, {
    LOG_LEVEL: 'trace', LEGACY_CVM: 'true', RATE_LIMIT_SERIAL_MAX: '40', RECONCILE_INTERVAL_MS: '600000', TOKEN_PEPPER: pepper.toString('base64')
  })
  const dir = folder(t)
  const secrets = new Secrets()
  secrets.addBytes('the pepper', pepper)
  const newDevice = async (name: string) => {
    const device = await service.register()
    secrets.add(`the token of ${name}`, device.registrationToken)
    return device
  }
  const newCsr = async (name: string, serialNumber: string) => {
    const { keyFile, csr } = await keyAndCsr(dir, serialNumber, 'RSA-2048')
    secrets.addKey(`the key of ${name}`, readFileSync(keyFile, 'utf8'))
    return csr
  }
  const post = async (path: string, body: string) => await curl(service.serviceUrl + path, { ca: service.rootCa, body })

  await t.test('a whole story: vends both ways, replays, refusals, and secrets in the wrong places', async t => {
    const first = await newDevice('a device that was vended')
    const csr = await newCsr('a device that was vended', first.serialNumber)
    for (const status of [201, 200]) t.equal((await post('/v1/certificates', vendBody(first, csr))).status, status)
    t.equal((await post('/v1/certificates', vendBody(first, await newCsr('a second key', first.serialNumber)))).status, 409)

    const second = await newDevice('a device with keys by AWS IoT')
    const made = await post('/v1/keys-and-certificates', JSON.stringify(second))
    t.equal(made.status, 201)
    secrets.addKey('the key that AWS IoT made', (JSON.parse(made.text) as Required<Vended>).keyPair.privateKey)
    t.equal((await post('/v1/keys-and-certificates', JSON.stringify(second))).status, 409)

    const wrong = { ...first, registrationToken: randomBytes(32).toString('base64url') }
    secrets.add('a wrong token', wrong.registrationToken)
    t.equal((await post('/v1/certificates', vendBody(wrong, csr))).status, 401)
    t.equal((await post('/v1/keys-and-certificates', JSON.stringify(wrong))).status, 401)

    const answers = await misplace(service, first, csr)
    t.ok(answers.every(({ status }) => status >= 400 && status < 500), `${answers.length} misplaced secrets: ${answers.map(({ status }) => status).join(' ')}`)
    t.strictSame(answers.flatMap(({ text, headers }) => secrets.foundIn(text + JSON.stringify(headers))), [], 'no refusal repeats one')
    await unreadable(service, first.registrationToken)

    const old = await newDevice('old firmware')
    const [given, ...others] = await askAsOldClient(service, old, wrong.registrationToken)
    secrets.addKey('the key of old firmware', (JSON.parse(given!.text) as { keyPair: { PrivateKey: string } }).keyPair.PrivateKey)
    t.strictSame([given!.status, ...others.map(({ status }) => status)], [
      200, 500, 500, 500, 404, 404, 404, 400, 405, 404, 431, 500, 200, 500, 200, 500, 400, 400, 405, 405, 401, 401
    ], 'old firmware')
    t.strictSame(others.flatMap(({ text, headers }) => secrets.foundIn(text + JSON.stringify(headers))), [], 'nor what old firmware is told')
    const { payload } = await service.iotData.send(new GetThingShadowCommand({ thingName: old.serialNumber }))
    t.strictSame(secrets.foundIn(Buffer.from(payload!).toString()), [], 'nor its shadow')

    for (let i = 0; i < 40; i++) await post('/v1/certificates', vendBody(wrong, csr))
    t.equal((await post('/v1/certificates', vendBody(wrong, csr))).status, 429)
  })

  const unused = await service.register()
  const sample = JSON.parse(readFileSync(join(service.dir, 'demo-device.json'), 'utf8')) as Device

  await t.test('nothing of that is in metrics or table', async t => {
    secrets.add('the token of the sample device', sample.registrationToken)
    for (const path of ['/metrics', '/healthz', '/readyz']) {
      const { text } = await curl(service.opsUrl + path)
      t.strictSame(secrets.foundIn(text), [], path)
      t.notMatch(text, sample.serialNumber)
    }
    const rows = await service.rows()
    const isKey = (row: object) => (row as { serialNumber?: { S?: string } }).serialNumber?.S?.startsWith('#key/')
    t.equal(rows.filter(row => !isKey(row)).length, 5, 'three devices of the story, the sample, and one that was never used')
    t.ok(rows.some(isKey), 'and the owners of their public keys')
    const dump = JSON.stringify(rows)
    t.strictSame(secrets.foundIn(dump), [], 'the table')
    t.match(dump, unused.registrationToken, 'but for the plain token of an old row that was never used')
  })

  await t.test('nothing of that is in what the process wrote until its end', async t => {
    secrets.add('the token that was never used', unused.registrationToken)
    t.equal(await service.stop(), 0)
    const output = service.output()
    t.match(output, '"level":20', 'the log was at its most talkative')
    t.ok(output.match(/"msg":"answered"/g)!.length > 30)
    t.strictSame(secrets.foundIn(output), [], `${secrets.size} spellings of secrets looked for in ${output.length} characters of stdout and stderr`)
  })
})
