// EST with clients that were written elsewhere, against one running service: strongSwan's pki and BouncyCastle as they are, and what
// cisco/libest 3.2 and est-client-python read of an answer, replayed.
import { X509Certificate, createPrivateKey } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { connect } from 'node:tls'
import t, { type Test } from 'tap'
import { hasTool, keyAndCsr, tool } from '../acceptance/tools.ts'
import { awsError, startFaultyProxy } from '../fixtures/faulty-proxy.ts'
import { startService } from '../fixtures/service.ts'

const BOUNCY_CASTLE = process.env['EST_BOUNCYCASTLE'] ?? '/usr/local/lib/est-bouncycastle'

const dir = mkdtempSync(join(tmpdir(), 'cvm-est-clients-'))
const file = (name: string): string => join(dir, name)
// strongSwan's pki knows no labels, so that it follows the default product.
writeFileSync(file('products.json'), JSON.stringify([
  { name: 'default', estBase64: 'one-line' }, { name: 'lines' }, { name: 'curve', keyTypes: ['EC-P256'], generatedKeys: false }
]))
const iot = await startFaultyProxy(t)
const service = await startService({
  PRODUCTS_FILE: file('products.json'), AWS_ENDPOINT_URL_IOT: iot.url, RATE_LIMIT_ADDRESS_MAX: '100000', RATE_LIMIT_SERIAL_MAX: '1000'
}, { tls: true })
iot.forwardTo(service.aws.iotUrl)
writeFileSync(file('root.pem'), service.aws.rootCaPem)
const { port } = new URL(await service.app.service.listen({ host: '127.0.0.1', port: 0 }))
t.teardown(async () => {
  await service.close()
  rmSync(dir, { recursive: true, force: true })
})

const hasPki = await hasTool(t, ['pki', '--help'], 'Debian: strongswan-pki and libstrongswan-standard-plugins', 'enrolment by strongSwan\'s pki --est')
const hasBouncyCastle = existsSync(join(BOUNCY_CASTLE, 'EstClient.class')) && await hasTool(t, ['java', '-version'], 'a JRE', 'enrolment by BouncyCastle')

const PKI = 'strongSwan\'s pki is not on this machine (Debian: strongswan-pki, libstrongswan-standard-plugins)'
await t.test('strongSwan\'s pki', { skip: hasPki ? false : PKI }, async t => {
  const device = await newDevice('swan')
  const pki = async (command: string, ...args: string[]) =>
    await tool('pki', [command, '--url', `https://localhost:${port}`, '--cacert', file('root.pem'), '--outform', 'pem', ...args], '', { cwd: dir })
  const enroll = async (name: string, ...how: string[]) => await pki('--est', '--in', await der(name), ...how)

  const roots = await pki('--estca', '--caout', 'roots.pem', '--force')
  t.equal(roots.code, 0, roots.stderr)
  t.equal(serialOf(readFileSync(file('roots.pem'), 'utf8')), serialOf(service.aws.rootCaPem), 'cacerts')
  const refused = await enroll('swan', '--userpass', `${device.serialNumber}:wrong`)
  t.not(refused.code, 0)
  t.match(refused.stderr, /HTTP 401/)
  throttleOnce()
  const enrolled = await enroll('swan', '--userpass', `${device.serialNumber}:${device.registrationToken}`, '--interval', '1', '--maxpolltime', '60')
  t.equal(enrolled.code, 0, enrolled.stderr)
  t.match(enrolled.stderr, /pending/i, 'it was told that the certificate is pending, and came again')
  isFor(t, enrolled.stdout, 'swan')
  writeFileSync(file('swan.crt'), enrolled.stdout)
  await keyAndCsr(dir, device.serialNumber, 'P-256', 'swan-next')
  const renewed = await enroll('swan-next', '--cert', file('swan.crt'), '--key', file('swan.key'))
  t.equal(renewed.code, 0, renewed.stderr)
  isFor(t, renewed.stdout, 'swan-next')
})

const BOUNCY = 'BouncyCastle\'s client is not on this machine (see .ci/est-bouncycastle, and install_tools of .ci/run)'
await t.test('BouncyCastle 1.80', { skip: hasBouncyCastle ? false : BOUNCY }, async t => {
  const [device, other, curve] = [await newDevice('bc'), await newDevice('bc-made'), 'curve']
  await keyAndCsr(dir, device.serialNumber, 'P-256', 'bc-next')
  const basic = `${device.serialNumber} ${device.registrationToken}`
  throttleOnce()
  const commands = [
    'cacerts bc-roots.pem', 'csrattrs', `csrattrs ${curve}`, `enroll ${device.serialNumber} wrong bc.csr bc.crt`, `enroll ${basic} bc.csr bc.crt`, `enroll ${basic} bc.csr bc.crt`,
    'reenroll bc.crt bc.key bc-next.csr bc-next.crt', `serverkeygen ${other.serialNumber} ${other.registrationToken} bc-made.csr bc-made.crt bc-made.pem`
  ]
  const { stdout, stderr } = await tool('java', ['-cp', `${BOUNCY_CASTLE}/*:${BOUNCY_CASTLE}`, 'EstClient', port, file('root.pem')], `${commands.join('\n')}\n`, { cwd: dir })
  const answers = stdout.trim().split('\n')
  t.match(answers, ['done', 'done none', 'done attributes', /^refused 401 /, /^pending \d+$/, 'done', 'done', 'done'], stderr)
  t.equal(serialOf(readFileSync(file('bc-roots.pem'), 'utf8')), serialOf(service.aws.rootCaPem))
  isFor(t, readFileSync(file('bc.crt'), 'utf8'), 'bc')
  isFor(t, readFileSync(file('bc-next.crt'), 'utf8'), 'bc-next')
  const made = new X509Certificate(readFileSync(file('bc-made.crt')))
  t.ok(made.checkPrivateKey(createPrivateKey(readFileSync(file('bc-made.pem')))), 'serverkeygen')
})

await t.test('cisco/libest 3.2, replayed: 16 headers, their names letter by letter, the length, lines of base64, statuses', async t => {
  const [device, made] = [await newDevice('libest', 'lines'), await newDevice('libest-made', 'lines')]
  const basic = basicOf(device)
  const roots = await libest('GET', 'lines/cacerts')
  t.match(roots, { status: 200, type: /^application\/pkcs7-mime/ })
  t.match(await libest('GET', 'lines/csrattrs'), { status: 204 })
  t.match(await libest('GET', 'curve/csrattrs'), { status: 200, type: /^application\/csrattrs/ })
  t.match(await libest('POST', 'lines/simpleenroll', 'libest'), { status: 401, challenge: /^Basic realm=/ }, 'it asks for credentials after the challenge')
  throttleOnce()
  t.match(await libest('POST', 'lines/simpleenroll', 'libest', basic), { status: 202, retryAfter: /^\d+$/ })
  const enrolled = await libest('POST', 'lines/simpleenroll', 'libest', basic)
  t.match(enrolled, { status: 200, type: /^application\/pkcs7-mime; smime-type=certs-only$/ })
  isFor(t, await certificateIn(enrolled.body), 'libest')
  writeFileSync(file('libest.crt'), await certificateIn(enrolled.body))
  await keyAndCsr(dir, device.serialNumber, 'P-256', 'libest-next')
  const held = { cert: readFileSync(file('libest.crt')), key: readFileSync(file('libest.key')) }
  const renewed = await libest('POST', 'lines/simplereenroll', 'libest-next', undefined, held)
  isFor(t, await certificateIn(renewed.body), 'libest-next')
  const wrong = await libest('POST', 'lines/simpleenroll', 'libest', basicOf({ ...device, registrationToken: 'wrong' }))
  t.match(wrong, { status: 401, challenge: /^Basic/ })
  t.match(await libest('POST', 'lines/serverkeygen', 'libest-made', basicOf(made)), { status: 200, type: /^multipart\/mixed; boundary=/ })
})

await t.test('est-client-python 0.2, replayed: PEM, base64 by Content-Transfer-Encoding, whole seconds', async t => {
  const device = await newDevice('python')
  throttleOnce()
  const ask = async (path: string, basic?: string, held?: Held) => {
    const { status, headers, body } = await exchange(path.startsWith('simple') ? 'POST' : 'GET', path, {
      ...path.startsWith('simple') && { body: readFileSync(file('python.csr'), 'utf8') }, ...basic && { basic }, ...held && { held }
    })
    const named = new Map(headers.map(([name, value]) => [name.toLowerCase(), value]))
    return { status, retryAfter: named.get('retry-after'), bytes: named.get('content-transfer-encoding') === 'base64' ? Buffer.from(body, 'base64') : Buffer.from(body) }
  }
  t.match(await ask('simpleenroll', basicOf(device)), { status: 202, retryAfter: /^\d+$/ }, 'TryLater')
  const { bytes } = await ask('simpleenroll', basicOf(device))
  isFor(t, await certificateIn(bytes.toString('base64')), 'python')
  writeFileSync(file('python.crt'), await certificateIn(bytes.toString('base64')))
  t.equal((await ask('cacerts')).bytes[0], 0x30)
  t.equal((await ask('curve/csrattrs')).bytes[0], 0x30)
  t.equal((await ask('simpleenroll', basicOf({ ...device, registrationToken: 'wrong' }))).status, 401)
  const held = { cert: readFileSync(file('python.crt')), key: readFileSync(file('python.key')) }
  await keyAndCsr(dir, device.serialNumber, 'P-256', 'python')
  isFor(t, await certificateIn((await ask('simplereenroll', undefined, held)).bytes.toString('base64')), 'python')
})

interface Held { cert: Buffer, key: Buffer }

/** One exchange on a connection of its own, as it stands on the wire. */
async function exchange (method: string, path: string, { body, basic, held }: { body?: string, basic?: string, held?: Held } = {}) {
  const socket = connect({ host: '127.0.0.1', port: Number(port), ca: service.aws.rootCaPem, servername: 'localhost', maxVersion: 'TLSv1.2', ...held })
  const head = [`${method} /.well-known/est/${path} HTTP/1.1`, 'Host: localhost', 'Connection: close', ...basic ? [`Authorization: Basic ${basic}`] : [],
    ...body === undefined ? [] : ['Content-Type: application/pkcs10', `Content-Length: ${body.length}`]]
  socket.write(`${head.join('\r\n')}\r\n\r\n${body ?? ''}`)
  const answer = await text(socket)
  const end = answer.indexOf('\r\n\r\n')
  const [line = '', ...lines] = answer.slice(0, end).split('\r\n')
  const headers = lines.map(each => [each.slice(0, each.indexOf(':')), each.slice(each.indexOf(':') + 2)] as const)
  return { status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(line)?.[1]), headers, body: answer.slice(end + 4) }
}

/** What libest makes of an answer: nothing but the first 16 headers, by their names in this very spelling, and a body of that length. */
async function libest (method: string, path: string, csr?: string, basic?: string, held?: Held) {
  const body = csr && `${readFileSync(file(`${csr}.csr`), 'utf8').replace(/-----[A-Z ]+-----\n/g, '')}`
  const answer = await exchange(method, path, { ...body && { body }, ...basic && { basic }, ...held && { held } })
  const kept = new Map(answer.headers.slice(0, 16))
  if (![200, 202, 204, 400, 401, 404, 423, 500, 502, 504].includes(answer.status)) throw new Error(`libest knows no ${answer.status}`)
  if (answer.headers.length > 16) throw new Error('the body would begin with headers')
  const length = Number(kept.get('Content-Length') ?? 0)
  if (answer.status === 200 && length !== answer.body.length) throw new Error('Content-Length is not that of the body')
  if (answer.status === 200 && !path.endsWith('serverkeygen') && !/^([A-Za-z0-9+/=]{1,76}\n)+$/.test(answer.body)) throw new Error('no lines of base64')
  return { status: answer.status, type: kept.get('Content-Type'), challenge: kept.get('WWW-Authenticate'), retryAfter: kept.get('Retry-After'), body: answer.body }
}

/** AWS IoT is at its quota for one certificate. */
function throttleOnce (): void {
  let isDone = false
  iot.fail(operation => {
    if (isDone || operation !== 'CreateCertificateFromCsr') return undefined
    isDone = true
    return awsError('ThrottlingException', 400)
  })
}

function basicOf ({ serialNumber, registrationToken }: { serialNumber: string, registrationToken: string }): string {
  return Buffer.from(`${serialNumber}:${registrationToken}`).toString('base64')
}

async function certificateIn (base64: string): Promise<string> {
  writeFileSync(file('answer.p7'), Buffer.from(base64, 'base64'))
  const { stdout, stderr } = await tool('openssl', ['pkcs7', '-inform', 'DER', '-in', file('answer.p7'), '-print_certs'])
  if (!stdout.includes('BEGIN CERTIFICATE')) throw new Error(`openssl found no certificate: ${stderr}`)
  return stdout
}

function isFor (t: Test, pem: string, name: string): void {
  t.ok(new X509Certificate(pem).checkPrivateKey(createPrivateKey(readFileSync(file(`${name}.key`)))), `a certificate for the key ${name}`)
}

function serialOf (pem: string): string {
  return new X509Certificate(pem).serialNumber
}

/** A device with key and request in `NAME.key` and `NAME.csr`. */
async function newDevice (name: string, product = 'default') {
  const device = await service.register({ product })
  await keyAndCsr(dir, device.serialNumber, 'P-256', name)
  return device
}

async function der (name: string): Promise<string> {
  const { code, stderr } = await tool('openssl', ['req', '-in', file(`${name}.csr`), '-outform', 'DER', '-out', file(`${name}.der`)])
  if (code !== 0) throw new Error(`openssl req failed: ${stderr}`)
  return file(`${name}.der`)
}
