// EST (RFC 7030) over a real socket, as clients that are strict about headers see it, and what comes of it.
import { execFileSync } from 'node:child_process'
import { X509Certificate, createPrivateKey, createPublicKey } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { startService } from '../fixtures/service.ts'
import { csrFor, newDevice, publicKeyOf } from '../fixtures/vending.ts'

const folder = mkdtempSync(join(tmpdir(), 'cvm-est-'))
const productsFile = join(folder, 'products.json')
writeFileSync(productsFile, JSON.stringify([{ name: 'meter', keyTypes: ['EC-P256'], generatedKeys: false }, { name: 'anything' }, { name: 'swan', estBase64: 'one-line' }]))
const iot = await startFaultyProxy(t)
const service = await startService({ AWS_ENDPOINT_URL_IOT: iot.url, PRODUCTS_FILE: productsFile, RATE_LIMIT_ADDRESS_MAX: '100000', RATE_LIMIT_SERIAL_MAX: '8', MAX_EVENT_LOOP_DELAY_MS: '600000' })
iot.forwardTo(service.aws.iotUrl)
const { port } = new URL(await service.app.service.listen({ host: '127.0.0.1', port: 0 }))
t.teardown(async () => {
  await service.close()
  rmSync(folder, { recursive: true, force: true })
})

interface Answer { status: number, head: string, body: string }
interface Device { serialNumber: string, registrationToken: string }

/** What helmet sets. */
const FOR_BROWSERS = /^(Content-Security-Policy|Strict-Transport-Security|X-Frame|X-Content-Type|X-Dns|X-Download|X-Permitted|X-Xss|Cross-Origin|Origin-Agent|Referrer)/mi

const TYPE = ['Content-Type: application/pkcs10', 'Content-Transfer-Encoding: base64']

await t.test('a certificate by serial number and token, exactly one, the same again', async t => {
  const device = await newDevice(service)
  const first = await enroll(device, bodyOf(device.certificateSigningRequest))
  t.equal(first.status, 200)
  t.match(first.head, /^Content-Type: application\/pkcs7-mime; smime-type=certs-only$/m, 'as libest wants it, to the letter')
  t.match(first.head, /^Content-Type: .*\nContent-Length: /, 'before all others')
  t.notMatch(first.head, FOR_BROWSERS)
  t.match(first.head, new RegExp(`^Content-Length: ${first.body.length}$`, 'm'), 'with its length')
  t.match(first.head, /^Cache-Control: no-store$/m)
  t.notMatch(first.head, /^[a-z-]+:/m, 'no header is in lower case')
  t.notMatch(first.head, /chunked/i)
  const [pem = '', ...more] = certificatesIn(first.body)
  t.equal(more.length, 0, 'exactly one certificate')
  t.equal(publicKeyOf(pem), publicKeyOf(certificateKeyOf(device.certificateSigningRequest)), 'for the key of the request (G6)')
  const again = await enroll(device, bodyOf(device.certificateSigningRequest).replaceAll('\n', ''), ['Content-Type: APPLICATION/PKCS10; charset=utf-8'])
  t.equal(again.body, first.body, 'byte for byte, without line ends and in another spelling of the type')
  t.equal((await enroll(device, device.certificateSigningRequest, [])).body, first.body, 'as PEM, without any type')
})

await t.test('no answer has headers for browsers, or more than 16', async t => {
  const device = await newDevice(service)
  const body = bodyOf(device.certificateSigningRequest)
  const answers = [
    await ask('cacerts'), await ask('csrattrs'), await ask('meter/csrattrs'), await ask('simpleenroll', body, TYPE), await ask('simplereenroll', body, TYPE),
    await enroll(device, 'x'), await enroll(device, body, ['Content-Type: text/plain']), await enroll(device, body), await ask('nothing/cacerts')
  ]
  for (const { status, head } of answers) {
    t.notMatch(head, FOR_BROWSERS, String(status))
    t.notMatch(head, /^[a-z-]+:/m, 'no header is in lower case')
    t.ok(head.split('\n').length <= 16, head)
    t.match(head, status === 204 ? /^Date/m : /^Content-Type: .*\n(WWW-Authenticate: .*\n)?Content-Length: /, 'what clients must find comes first')
  }
})

await t.test('the challenge to a request without credentials has no body, which BouncyCastle would not read', async t => {
  const { certificateSigningRequest } = await newDevice(service)
  for (const path of ['simpleenroll', 'serverkeygen']) {
    const { status, head, body } = await ask(path, bodyOf(certificateSigningRequest), TYPE)
    t.match({ status, body }, { status: 401, body: '' })
    t.match(head, /^Content-Type: .*\nWWW-Authenticate: Basic realm="cvm"\nContent-Length: 0\n/)
  }
})

await t.test('who cannot show a token is told how, alike', async t => {
  const device = await newDevice(service)
  const body = bodyOf(device.certificateSigningRequest)
  const wrong = await enroll({ ...device, registrationToken: 'wrong' }, body)
  const unknown = await enroll({ serialNumber: 'nobody', registrationToken: 'wrong' }, body)
  for (const answer of [wrong, await ask('simpleenroll', body, [...TYPE, 'Authorization: Basic ???'])]) {
    t.equal(answer.status, 401)
    t.match(answer.head, /^WWW-Authenticate: Basic realm="cvm"$/m)
    t.match(answer.head, /^Content-Type: text\/plain; charset=utf-8$/m)
    t.match(answer.body, /by HTTP Basic, as user name and password.*\n\(device-not-authorized\)\n$/)
  }
  const other = await enroll({ serialNumber: 'nobody', registrationToken: 'wrong' }, bodyOf(csrFor('nobody')))
  t.equal(other.body, wrong.body, 'an unknown device is answered like a wrong token (G7)')
  t.equal(unknown.status, 400, 'a CSR for another device is refused before')
  t.equal((await enroll(device, body)).status, 200, 'and nothing was spent')
})

await t.test('bodies that are no request, and media types that are none of EST', async t => {
  const device = await newDevice(service)
  for (const [body, reason] of [['', 'csr-not-der'], ['!!!', 'pem-not-canonical'], ['AAAA', 'csr-not-der'], [bodyOf(csrFor('another')), 'subject-other-device']] as const) {
    const answer = await enroll(device, body)
    t.equal(answer.status, 400, reason)
    t.match(answer.body, new RegExp(`\\(csr-rejected ${reason}\\)\n$`))
  }
  const typed = await enroll(device, '{}', ['Content-Type: application/json'])
  t.equal(typed.status, 415)
  t.match(typed.body, /application\/json, not application\/pkcs10.*\n.*base64 as Content-Type: application\/pkcs10\.\n\(unsupported-media-type\)/)
  const der = Buffer.from(bodyOf(device.certificateSigningRequest), 'base64')
  for (const [body, told] of [
    ['', /The body is empty.*base64/], ['!!!', /not base64/], ['{"certificateSigningRequest": "x"}', /The body is JSON/], [der, /The body is DER.*openssl base64/]
  ] as const) {
    const answer = await enroll(device, body)
    t.equal(answer.status, 400)
    t.match(answer.body, told)
  }
  const long = await enroll(device, 'A'.repeat(20_000))
  t.match(long, { status: 413, body: /base64/ })
  for (const { body } of [typed, long, await enroll(device, 'AAAA')]) t.notMatch(body, /json\b.*\n.*json|PEM block must|Send `Content-Type: application\/json`/i)
})

await t.test('a serial number with colons, such as a MAC address, is found by the common name of the request', async t => {
  const serialNumber = 'AA:BB:CC:DD:EE:01'
  const device = await newDevice(service, { serialNumber })
  t.equal((await enroll(device, bodyOf(device.certificateSigningRequest))).status, 200)
  t.match(await enroll({ ...device, registrationToken: 'wrong' }, bodyOf(device.certificateSigningRequest)), { status: 401, body: /first ":"/ })
  const other = await newDevice(service, { serialNumber: 'AA:BB:CC:DD:EE:02' })
  t.match(await enroll(other, bodyOf(csrFor(serialNumber))), { status: 400, body: /subject-other-device/ }, 'not by the request of another device')
})

await t.test('estBase64: in one line for the clients of a product, with and without a label', async t => {
  const swan = await newDevice(service, { product: 'swan' })
  for (const path of ['simpleenroll', 'swan/simpleenroll']) {
    const { status, head, body } = await enroll(swan, bodyOf(swan.certificateSigningRequest), TYPE, path)
    t.equal(status, 200)
    t.match(body, /^[A-Za-z0-9+/]+=*$/, 'one line without an end')
    t.match(head, new RegExp(`^Content-Length: ${body.length}$`, 'm'))
    t.equal(certificatesIn(body).length, 1)
  }
  t.match((await ask('swan/cacerts')).body, /^[A-Za-z0-9+/]+=*$/)
  t.match((await ask('cacerts')).body, /^([A-Za-z0-9+/=]{1,64}\n)+$/, 'other products keep lines of 64')
})

await t.test('labels are products', async t => {
  const meter = await newDevice(service, { product: 'meter' })
  const other = await newDevice(service)
  const refused = await enroll(other, bodyOf(other.certificateSigningRequest), TYPE, 'meter/simpleenroll')
  t.equal(refused.status, 403)
  t.match(refused.body, /\(product-mismatch\)\n$/)
  t.equal((await enroll(meter, bodyOf(meter.certificateSigningRequest), TYPE, 'meter/simpleenroll')).status, 200)
  t.equal((await enroll(other, bodyOf(other.certificateSigningRequest))).status, 200, 'refused without having been claimed')
  const unknown = await ask('nothing/cacerts')
  t.equal(unknown.status, 404)
  t.match(unknown.body, /\(not-found\)/)
})

await t.test('the roots that devices verify AWS IoT with, for everybody', async t => {
  for (const path of ['cacerts', 'meter/cacerts']) {
    const { status, head, body } = await ask(path)
    t.equal(status, 200)
    t.match(head, /^Content-Type: application\/pkcs7-mime; smime-type=certs-only$/m)
    const roots = certificatesIn(body).map(pem => new X509Certificate(pem))
    t.ok(roots.length > 0 && roots.every(root => root.verify(root.publicKey)), 'self-signed, each of them')
    t.equal(roots[0]?.toString(), new X509Certificate(service.aws.rootCaPem).toString())
  }
})

await t.test('attributes where only one curve is taken, else none', async t => {
  const none = await ask('csrattrs')
  t.equal(none.status, 204, 'never 404')
  t.equal((await ask('anything/csrattrs')).status, 204)
  const { status, head, body } = await ask('meter/csrattrs')
  t.equal(status, 200)
  t.match(head, /^Content-Type: application\/csrattrs$/m)
  const read = openssl(['asn1parse', '-inform', 'DER'], Buffer.from(body, 'base64'))
  for (const name of ['id-ecPublicKey', 'prime256v1', 'ecdsa-with-SHA256']) t.match(read, new RegExp(name))
})

await t.test('a key pair made by AWS IoT, in two parts', async t => {
  const device = await newDevice(service)
  const { status, head, body } = await enroll(device, bodyOf(device.certificateSigningRequest), TYPE, 'serverkeygen')
  t.equal(status, 200)
  const boundary = /^Content-Type: multipart\/mixed; boundary=([\w-]+)$/m.exec(head)?.[1] ?? ''
  const [, key = '', certificate = ''] = body.split(`--${boundary}`)
  t.match(key, /^\r\nContent-Type: application\/pkcs8\r\n/)
  const privateKey = createPrivateKey({ key: Buffer.from(contentOf(key), 'base64'), format: 'der', type: 'pkcs8' })
  const [pem = ''] = certificatesIn(contentOf(certificate))
  t.equal(createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }), publicKeyOf(pem), 'they belong together')
  t.notMatch(service.logs(), new RegExp(contentOf(key).slice(0, 40)), 'the key is not logged')
  t.match((await enroll(device, bodyOf(device.certificateSigningRequest), TYPE, 'serverkeygen')).body, /key-not-recoverable/)
  const meter = await newDevice(service, { product: 'meter' })
  const refused = await enroll(meter, bodyOf(meter.certificateSigningRequest), TYPE, 'meter/serverkeygen')
  t.equal(refused.status, 403)
  t.match(refused.body, /generated-keys-not-allowed/)
})

await t.test('pending while AWS throttles: 202 with whole seconds, then the certificate', async t => {
  const device = await newDevice(service)
  const body = bodyOf(device.certificateSigningRequest)
  iot.fail(operation => operation === 'CreateCertificateFromCsr' ? awsError('ThrottlingException', 400) : undefined)
  const pending = await enroll(device, body)
  iot.fail()
  t.equal(pending.status, 202)
  t.match(pending.head, /^Retry-After: [1-9]\d*$/m)
  t.match(pending.body, /aws-iot-/)
  t.equal((await enroll(device, body)).status, 200)
})

await t.test('limited per serial number', async t => {
  const device = await newDevice(service)
  const body = bodyOf(device.certificateSigningRequest)
  for (let n = 0; n < 8; n++) t.equal((await enroll(device, body)).status, 200)
  const limited = await enroll(device, body)
  t.equal(limited.status, 429)
  t.match(limited.head, /^Retry-After: \d+$/m)
})

function ask (path: string, body?: string | Buffer, headers: string[] = []): Promise<Answer> {
  const length = body === undefined ? [] : [`Content-Length: ${Buffer.byteLength(body)}`]
  const head = [`${body === undefined ? 'GET' : 'POST'} /.well-known/est/${path} HTTP/1.1`, 'Host: localhost', 'Connection: close', ...headers, ...length]
  const socket = connect(Number(port), '127.0.0.1').setEncoding('utf8')
  socket.write(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), Buffer.from(body ?? '')]))
  return text(socket).then(answer => {
    const end = answer.indexOf('\r\n\r\n')
    const lines = answer.slice(0, end).split('\r\n')
    return { status: Number(lines[0]?.split(' ')[1]), head: lines.slice(1).join('\n'), body: answer.slice(end + 4) }
  })
}

function enroll ({ serialNumber, registrationToken }: Device, body: string | Buffer, headers = TYPE, path = 'simpleenroll'): Promise<Answer> {
  const basic = Buffer.from(`${serialNumber}:${registrationToken}`).toString('base64')
  return ask(path, body, [`Authorization: Basic ${basic}`, ...headers])
}

/** A request in base64 without its PEM lines, as EST clients send it. */
function bodyOf (csrPem: string): string {
  return csrPem.replace(/-----[A-Z ]+-----\n/g, '')
}

function certificateKeyOf (csrPem: string): string {
  return openssl(['req', '-noout', '-pubkey'], Buffer.from(csrPem))
}

function certificatesIn (base64: string): string[] {
  const read = openssl(['pkcs7', '-inform', 'DER', '-print_certs'], Buffer.from(base64, 'base64'))
  return read.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
}

function contentOf (part: string): string {
  return part.slice(part.indexOf('\r\n\r\n') + 4).trim()
}

function openssl (args: string[], input: Buffer): string {
  return execFileSync('openssl', args, { input, encoding: 'utf8' })
}
