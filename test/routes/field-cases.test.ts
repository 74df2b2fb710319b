// What tools in the field write, sent by every way in: JSON, EST, a batch, and the file of a CSR that `cvm line vend` reads.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { X509Certificate, createPublicKey, sign } from 'node:crypto'
import t from 'tap'
import { Failure } from '../../src/cli/failure.ts'
import { itemOf } from '../../src/cli/line-item.ts'
import { API_KEYS, ask } from '../fixtures/api-keys.ts'
import { fieldPath, fieldText } from '../fixtures/field.ts'
import { openssl, opensslCsr, opensslKey } from '../fixtures/openssl.ts'
import { total } from '../fixtures/scrape.ts'
import { isProblem } from '../fixtures/problems.ts'
import { startService } from '../fixtures/service.ts'
import { csrFor, newKey, vend } from '../fixtures/vending.ts'
import { connect } from '../local/rig.ts'
import { CN, bytesOf, derOf, handmadeCsr, hex, name, pemOf, spkiOf, tlv, treeOf, utf8, type Tree } from '../x509/handmade.ts'

const service = await startService({ API_KEYS, RATE_LIMIT_SERIAL_MAX: '100000', RATE_LIMIT_ADDRESS_MAX: '100000' })
t.teardown(() => service.close())

const EC_P256 = tlv(0x30, tlv(0x06, hex('2a8648ce3d0201')), tlv(0x06, hex('2a8648ce3d030107')))

type Device = Awaited<ReturnType<typeof service.register>>
/** Bytes that hold the certificate in DER, or what the refusal says. */
type Answer = { der: Buffer } | { refusal: string }

const WAYS: Readonly<Record<string, (device: Device, path: string) => Promise<Answer>>> = {
  JSON: async (device, path) => said((await vend(service, { ...device, certificateSigningRequest: readFileSync(path, 'utf8') })).json()),
  EST: async ({ serialNumber, registrationToken }, path) => {
    const authorization = `Basic ${Buffer.from(`${serialNumber}:${registrationToken}`).toString('base64')}`
    const headers = { authorization, 'content-type': 'application/pkcs10' }
    const payload = readFileSync(path)
    const { statusCode, body } = await service.app.service.inject({ method: 'POST', url: '/.well-known/est/simpleenroll', headers, payload })
    return statusCode === 200 ? { der: Buffer.from(body, 'base64') } : { refusal: body }
  },
  batch: (device, path) => batch({ ...device, certificateSigningRequest: readFileSync(path, 'utf8') }),
  'line vend': async (device, path) => {
    try {
      const request = { line: 1, ...device, csrFile: path }
      return await batch((await itemOf(request, { out: '/nonexistent', keys: 'nobody', keyType: 'ec', isDryRun: true })).message)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return { refusal: `${error.message}: ${error.problem.detail}` }
    }
  }
}
const ALL = Object.keys(WAYS)
/** By the CLI alone, which reads files for people. */
const BY_FILE = ['line vend']

const TAKEN: ReadonlyArray<readonly [file: string, ways?: readonly string[]]> = [
  ['01-mbedtls-2.28.3-ecdsa-null-parameters.csr'],
  ['02-signature-raw-r-s.csr'],
  ['02b-signature-integer-padded-to-32.csr'],
  ['03-no-attributes-pkijs.csr'],
  ['04-version-2-wolfssl-default.csr'],
  ['05a-certtool-default-text.csr'],
  ['05c-bag-attributes.csr'],
  ['05d-openssl-req-text.csr'],
  ['06a-utf16.csr', BY_FILE],
  ['06b-bom.csr'],
  ['06d-trailing-spaces.csr'],
  ['06e-base64-in-one-line.csr'],
  ['06f-der.csr', BY_FILE],
  ['14-rsa-absent-parameters-pkijs.csr']
]

/** One device for each key: some of the files are of the same one. */
const devices = new Map<string, Device>()

for (const [file, ways = ALL] of TAKEN) {
  await t.test(`${file} is vended by ${ways.join(', ')}`, async t => {
    const key = await keyIn(file)
    const device = devices.get(key) ?? await service.register(file.startsWith('14') ? { serialNumber: 'gen-1' } : {})
    devices.set(key, device)
    for (const way of ways) {
      const answer = await WAYS[way]!(device, fieldPath(file))
      if ('refusal' in answer) t.fail(`${way}: ${answer.refusal}`)
      else t.ok(answer.der.includes(createPublicKey(key).export({ type: 'spki', format: 'der' })), `${way}: a certificate for the key`)
    }
  })
}

await t.test('repaired signatures are counted by kind', async t => {
  for (const kind of ['raw', 'integers']) t.ok(await total(service, 'cvm_signatures_repaired_total', { what: 'csr', kind }) > 0, kind)
  t.equal(await total(service, 'cvm_signatures_repaired_total', { what: 'proof' }), 0)
})

await t.test('bodies of clients that build their JSON by hand say where the fault is and what to write instead', async t => {
  const post = (file: string) => service.app.service.inject({ method: 'POST', url: '/v1/certificates', headers: { 'content-type': 'application/json' }, payload: fieldText(file) })
  const line = (file: string) => ask(service, 'POST', '/v1/batches', fieldText(file), { as: 'line', 'content-type': 'application/x-ndjson' })
  isProblem(t, await post('10a-raw-newlines-in-json.json'), 'malformed-json', { detail: /^line 1, column 132: a line ends inside a string; the line ends of a PEM are written \\n$/ })
  t.match((await line('10a-raw-newlines-in-json.json')).body, /line 1, column 96: this string does not end; the line ends of a PEM are written \\\\n/, 'as a line of a batch')
  isProblem(t, await post('10b-double-escaped-newlines.json'), 'csr-rejected', { reason: 'pem-not-canonical', detail: /escaped twice; JSON writes each as \\n, not as \\\\n/ })
  isProblem(t, await post('10d-path-in-place-of-contents.json'), 'csr-rejected', { reason: 'pem-not-one-block', detail: /the name of a file; send what is in the file/ })
})

await t.test('other ways refuse what only files may be', async t => {
  const device = await service.register()
  for (const file of ['06a-utf16.csr', '06f-der.csr']) {
    for (const way of ALL.filter(way => way !== 'line vend')) t.match(await WAYS[way]!(device, fieldPath(file)), { refusal: /csr-rejected/ }, `${file} by ${way}`)
  }
  for (const way of ['JSON', 'batch']) {
    t.match(await WAYS[way]!(device, fieldPath('06a-utf16.csr')), { refusal: /it is UTF-16/ }, way)
    t.match(await WAYS[way]!(device, fieldPath('06f-der.csr')), { refusal: /it is DER/ }, way)
  }
})

await t.test('what is unsafe or ambiguous stays refused by every way in', async t => {
  const device = await service.register()
  const { serialNumber } = device
  const key = await opensslKey('ec')
  const by = async (wish: Omit<Parameters<typeof opensslCsr>[0], 'serialNumber'>) => (await opensslCsr({ serialNumber, ...wish })).csrPem
  const good = csrFor(serialNumber, key)
  const der = derOf(good)
  const point = spkiOf(key).subarray(-65)
  const withPoint = (bytes: Buffer) => handmadeCsr(key, { spki: tlv(0x30, EC_P256, tlv(0x03, hex('00'), bytes)) })
  const refused: Record<string, readonly [csr: string, reason: RegExp]> = {
    'two CSRs': [good + csrFor(serialNumber, key), /pem-not-one-block|there are 2/],
    'a CSR and a private key': [good + key, /pem-wrong-label|private key/],
    'a trailing byte': [pemOf(Buffer.concat([der, hex('00')])), /csr-not-der/],
    'a trailing CSR': [pemOf(Buffer.concat([der, der])), /csr-not-der/],
    'a length that is not the shortest': [pemOf(Buffer.concat([hex('308200'), der.subarray(2)])), /csr-not-der/],
    'RSA-PSS': [await by({ key: 'rsa', args: ['-sigopt', 'rsa_padding_mode:pss'] }), /signature-algorithm-not-allowed/],
    'SHA-1': [await by({ digest: 'sha1' }), /signature-algorithm-not-allowed/],
    Ed25519: [await by({ key: 'ed25519' }), /key-type-not-allowed/],
    'explicit curve parameters': [await by({ key: 'ec-explicit' }), /curve-parameters-explicit/],
    'exponent 3': [await by({ key: 'rsa-exponent-3' }), /rsa-exponent-not-allowed/],
    'a compressed point': [await by({ key: 'ec-compressed' }), /ec-point-not-uncompressed/],
    'a point beside the curve': [withPoint(Buffer.concat([point.subarray(0, -1), Buffer.from([point.at(-1)! ^ 1])])), /key-not-valid/],
    'another request under the signature': [forged(good, key), /signature-invalid/]
  }
  const folder = t.testdir(Object.fromEntries(Object.entries(refused).map(([what, [csr]]) => [`${what}.csr`, csr])))
  for (const [what, [, reason]] of Object.entries(refused)) {
    for (const way of ALL) t.match(await WAYS[way]!(device, join(folder, `${what}.csr`)), { refusal: reason }, `${what} by ${way}`)
  }
})

/** With the signature of another request of the same key, as raw r and s. */
function forged (csr: string, key: string): string {
  const [info, algorithm] = treeOf(derOf(csr)).content as Tree[]
  const signature = sign('sha256', Buffer.from('another request'), { key, dsaEncoding: 'ieee-p1363' })
  return pemOf(tlv(0x30, bytesOf(info!), bytesOf(algorithm!), tlv(0x03, hex('00'), signature)))
}

await t.test('a key whose CSR has NULL parameters (mbedTLS 2.28.3) connects with its certificate', async t => {
  const device = await service.register()
  const key = newKey()
  const algorithm = tlv(0x30, tlv(0x06, hex('2a8648ce3d040302')), tlv(0x05))
  const certificateSigningRequest = handmadeCsr(key, { subject: name([CN, utf8(device.serialNumber)]), algorithm })
  const answer = await vend(service, { ...device, certificateSigningRequest })
  t.equal(answer.statusCode, 201, answer.body)
  const client = await connect(service.aws, { clientId: device.serialNumber, key, cert: answer.json().certificatePem as string })
  t.ok(client.connected)
  await client.endAsync()
})

async function batch (line: object): Promise<Answer> {
  const { results: [result] } = (await ask(service, 'POST', '/v1/batches', [line], { as: 'line' })).json() as { results: [Record<string, string>] }
  return said(result)
}

function said (body: Record<string, string>): Answer {
  return body['certificatePem'] === undefined ? { refusal: JSON.stringify(body) } : { der: new X509Certificate(body['certificatePem']).raw }
}

/** The public key as openssl reads it, whatever the file is. */
async function keyIn (file: string): Promise<string> {
  const bytes = readFileSync(fieldPath(file))
  const text = file.startsWith('06a') ? bytes.toString('utf16le') : bytes.toString()
  const [pem = ''] = /-----BEGIN[^]*END[^-]*-----/.exec(text) ?? []
  const plain = pem.replaceAll(/[ \t]+$/gm, '')
  return (await openssl(file.startsWith('06f') ? ['req', '-inform', 'DER', '-in', fieldPath(file), '-noout', '-pubkey'] : ['req', '-noout', '-pubkey'], plain)).stdout
}
