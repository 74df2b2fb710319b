// What clients of EST send in place of the base64 of a request: each is told by name.
import t from 'tap'
import { readEstCsr } from '../../src/x509/est-body.ts'
import { CvmError } from '../../src/errors.ts'
import { checkCsr } from '../../src/x509/csr.ts'
import { commonName, freshKey } from './handmade-certificate.ts'
import { derOf, handmadeCsr } from './handmade.ts'

const serialNumber = 'SN-0001'
const pem = handmadeCsr(freshKey(), { subject: commonName(serialNumber) })
const der = derOf(pem)
const base64 = der.toString('base64')
const lines = base64.match(/.{1,64}/g)!.join('\r\n')
const base64url = `${der.subarray(0, -3).toString('base64url')}_-_-`
const bodies = { utf16: Buffer.from(`\ufeff${pem}`, 'utf16le').toString(), utf16Base64: Buffer.from(base64, 'utf16le').toString() }

/** Base64 with a character that must be percent-encoded, in each of the three paddings, whatever the length of the signature is. */
function withSlash (more: number): string {
  return Buffer.concat([der, Buffer.alloc(3 + more, 0xff)]).toString('base64')
}

function detailFor (body: unknown): string {
  try {
    readEstCsr(body)
  } catch (error) {
    if (error instanceof CvmError && error.code === 'csr-rejected') return error.message
    throw error
  }
  return 'taken'
}

await t.test('base64 in lines or in one, and a PEM, are read as the same request', async t => {
  for (const body of [base64, lines, `${lines}\r\n`, `\ufeff${lines}`, `${base64}\0`, ` ${base64}\n\n`, pem, `text\n${pem}text`]) {
    t.equal(checkCsr(readEstCsr(body), { serialNumber }).pem, pem)
  }
})

await t.test('what is sent in their place is told by name', async t => {
  const cases: ReadonlyArray<readonly [what: string, body: unknown, detail: RegExp]> = [
    ['no body', undefined, /is empty/],
    ['white space', '\r\n', /is empty/],
    ['DER', der.toString('utf8'), /is DER\. Send it in base64/],
    ['hex', der.toString('hex'), /is hex/],
    ['hex in upper case', der.toString('hex').toUpperCase(), /is hex/],
    ['JSON', JSON.stringify({ csr: pem.replaceAll('-----', '') }), /is JSON/],
    ['base64url', base64url, /is base64url/],
    ...[0, 1, 2].map(more => ['percent-encoded', encodeURIComponent(withSlash(more)), /percent-encoded/] as const),
    ...['%0A', '%3D', '=%3D'].map(end => [`percent-encoded from ${end} on`, `${base64.replace(/=+$/, '')}${end}`, /percent-encoded/] as const),
    ['UTF-16', bodies.utf16, /UTF-16/],
    ['UTF-16 without a mark', bodies.utf16Base64, /UTF-16/],
    ['a path', '/etc/device/request.csr', /name of a file; send what is in the file/],
    ['curl\'s file', '@request.csr', /name of a file/],
    ['a damaged label', pem.replaceAll('-----', '----'), /BEGIN line is damaged/],
    ['a PEM in base64', Buffer.from(pem).toString('base64'), /a PEM text in base64/],
    ['cut off', base64.slice(0, -3), /not base64, or its padding is wrong/],
    ['a form', `csr=${base64}`, /not base64, or its padding is wrong/]
  ]
  for (const [what, body, detail] of cases) {
    const found = detailFor(body)
    t.match(found, detail, what)
    t.match(found, /^[ -~]{1,200}$/, `${what}: a text for people`)
    t.notMatch(found, base64.slice(0, 16), `${what}: nothing of it is told`)
  }
})
