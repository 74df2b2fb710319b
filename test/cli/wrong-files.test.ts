// Files that people give to `cvm`: what is given in the place of a key, a certificate or a secret is said by name, in every command.
import { execFileSync, spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Command } from 'commander'
import t, { type Test } from 'tap'
import { readCertificateFile, readCertificatePem } from '../../src/cli/certificate-file.ts'
import { FILES, readPrivateKey, readText } from '../../src/cli/device-folder.ts'
import { deviceCommand } from '../../src/cli/device.ts'
import { Failure, describe } from '../../src/cli/failure.ts'
import { kindOf } from '../../src/cli/file-kind.ts'
import { lineCommand } from '../../src/cli/line.ts'
import { operatorCommand } from '../../src/cli/operator.ts'
import { privateKeyOf } from '../../src/cli/private-key.ts'
import { verifyCommand } from '../../src/cli/verify.ts'
import { Authority, vendAnswer } from './openssl-authority.ts'

process.env['CVM_API_KEY'] = 'a-key'
process.env['XDG_CONFIG_HOME'] = '/nonexistent'

const authority = new Authority(t, 'Right')
const { certificate, privateKey } = authority.issue('/CN=SN-1')
const dir = t.testdir({ 'key.pem': privateKey, 'cert.pem': certificate, 'ca.pem': authority.certificate })
const at = (name: string) => join(dir, name)
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: ['ignore', 'pipe', 'ignore'] })
const utf16 = (text: string) => Buffer.from(`\ufeff${text}`, 'utf16le')

openssl('pkey', '-in', 'key.pem', '-outform', 'DER', '-out', 'key.der')
openssl('ec', '-in', 'key.pem', '-outform', 'DER', '-out', 'sec1.der')
openssl('ec', '-in', 'key.pem', '-aes256', '-passout', 'pass:x', '-out', 'traditional.pem')
openssl('pkcs8', '-topk8', '-in', 'key.pem', '-passout', 'pass:x', '-out', 'encrypted.pem')
openssl('pkcs8', '-topk8', '-in', 'key.pem', '-passout', 'pass:x', '-outform', 'DER', '-out', 'encrypted.der')
openssl('pkey', '-in', 'key.pem', '-pubout', '-out', 'public.pem')
openssl('pkey', '-in', 'key.pem', '-pubout', '-outform', 'DER', '-out', 'public.der')
openssl('req', '-new', '-key', 'key.pem', '-subj', '/CN=SN-1', '-out', 'csr.pem')
openssl('req', '-in', 'csr.pem', '-outform', 'DER', '-out', 'csr.der')
openssl('x509', '-in', 'cert.pem', '-outform', 'DER', '-out', 'cert.der')
openssl('req', '-x509', '-key', 'key.pem', '-subj', '/CN=SN-1', '-set_serial', '3', '-outform', 'DER', '-out', 'serial-3.der')
openssl('pkcs12', '-export', '-in', 'cert.pem', '-inkey', 'key.pem', '-passout', 'pass:x', '-out', 'bundle.p12')
openssl('crl2pkcs7', '-nocrl', '-certfile', 'cert.pem', '-outform', 'DER', '-out', 'bundle.p7b')
openssl('crl2pkcs7', '-nocrl', '-certfile', 'cert.pem', '-out', 'bundle.p7b.pem')
openssl('genpkey', '-algorithm', 'ED25519', '-out', 'ed25519.pem')
const base64 = certificate.split('\n').slice(1, -2).join('\n')
const files: Record<string, Buffer | string> = {
  empty: ' \n',
  path: '/etc/cvm/device.key\n',
  prose: 'see the other file',
  'cut.pem': privateKey.slice(0, 120),
  'cut-cert.pem': certificate.slice(0, 200),
  'escaped.pem': certificate.replaceAll('\n', '\\n'),
  'broken.pem': privateKey.replace(/\n[^\n]{20}/, '\nAAAAAAAAAAAAAAAAAAAA'),
  'broken-cert.pem': certificate.replace(/\n[^\n]{20}/, '\nAAAAAAAAAAAAAAAAAAAA'),
  base64,
  'both.pem': `${certificate}${privateKey}`,
  'utf16-key.pem': utf16(privateKey),
  'utf16-cert.pem': utf16(certificate),
  'bom-cert.pem': `\ufeff${certificate}`,
  'text-cert.pem': openssl('x509', '-in', 'cert.pem', '-text'),
  'crlf-cert.pem': certificate.replaceAll('\n', '  \r\n'),
  'chain.pem': `${certificate}${authority.certificate}`,
  'jwk.json': '{"kty":"EC"}',
  'page.html': '<!doctype html>',
  openssh: '-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n-----END OPENSSH PRIVATE KEY-----\n',
  'id.pub': 'ecdsa-sha2-nistp256 AAAA me@here',
  'key.ppk': 'PuTTY-User-Key-File-3: ecdsa-sha2-nistp256',
  binary: Buffer.from('7f454c460201010000000000', 'hex'),
  'other.der': Buffer.concat([Buffer.from('308200c8', 'hex'), Buffer.alloc(200)])
}
for (const [name, content] of Object.entries(files)) writeFileSync(at(name), content)

const KINDS: Record<string, string> = {
  'key.pem': 'a private key in PEM',
  'key.der': 'a private key in DER',
  'sec1.der': 'a private key in DER',
  'traditional.pem': 'an encrypted private key in PEM',
  'encrypted.pem': 'an encrypted private key in PEM',
  'encrypted.der': 'an encrypted private key in DER',
  'public.pem': 'a public key in PEM',
  'public.der': 'a public key in DER',
  'csr.pem': 'a certificate signing request in PEM',
  'csr.der': 'a certificate signing request in DER',
  'cert.pem': 'a certificate in PEM',
  'cert.der': 'a certificate in DER',
  'serial-3.der': 'a certificate in DER',
  'bundle.p12': 'a PKCS#12 bundle (.p12, .pfx)',
  'bundle.p7b': 'a PKCS#7 bundle',
  'bundle.p7b.pem': 'a PKCS#7 bundle in PEM',
  empty: 'empty',
  path: 'the path of another file',
  prose: 'text without a PEM block',
  'cut.pem': 'a private key in PEM, cut off before the line -----END PRIVATE KEY-----',
  'cut-cert.pem': 'a certificate in PEM, cut off before the line -----END CERTIFICATE-----',
  'escaped.pem': 'a certificate in PEM, with \\n written out where its lines end',
  base64: 'base64 without the BEGIN and END lines of PEM',
  'both.pem': 'a certificate and a private key in PEM',
  'utf16-key.pem': 'a private key in PEM',
  'jwk.json': 'a key in JSON (JWK)',
  'page.html': 'HTML or XML',
  openssh: 'a private key in the form of OpenSSH in PEM',
  'id.pub': 'a public key in the form of OpenSSH',
  'key.ppk': 'a key in the form of PuTTY',
  binary: 'neither text nor DER',
  'other.der': 'DER, but no key, certificate or request'
}

await t.test('what a file is', t => {
  for (const [name, kind] of Object.entries(KINDS)) t.equal(kindOf(readFileSync(at(name))), kind, name)
  t.end()
})

await t.test('what is merely untidy is taken', async t => {
  const { fingerprint256 } = new X509Certificate(certificate)
  for (const name of ['cert.pem', 'cert.der', 'utf16-cert.pem', 'bom-cert.pem', 'text-cert.pem', 'crlf-cert.pem']) {
    t.equal((await readCertificateFile(at(name)))[0]?.fingerprint256, fingerprint256, name)
    t.equal(new X509Certificate(await readCertificatePem(at(name), 'one')).fingerprint256, fingerprint256, `${name}, for the service`)
  }
  t.equal((await readCertificateFile(at('chain.pem'))).length, 2)
  for (const name of ['key.pem', 'key.der', 'sec1.der', 'utf16-key.pem', 'both.pem']) {
    t.ok(new X509Certificate(certificate).checkPrivateKey(privateKeyOf(readFileSync(at(name)), name)), name)
  }
  for (const name of ['encrypted.pem', 'encrypted.der', 'traditional.pem']) {
    t.ok(new X509Certificate(certificate).checkPrivateKey(privateKeyOf(readFileSync(at(name)), name, 'x')), `${name}, with its passphrase`)
  }
})

let folders = 0
const NO_KEY = ['cert.pem', 'csr.pem', 'public.pem', 'bundle.p12', 'empty', 'path', 'cut.pem', 'openssh', 'encrypted.pem', 'binary', 'other.der']
const NO_CERTIFICATE = ['csr.pem', 'public.pem', 'bundle.p7b', 'empty', 'path', 'cut-cert.pem', 'escaped.pem', 'base64', 'binary', 'other.der', 'page.html']
const URL_OPTION = ['--url', 'http://127.0.0.1:1']

const operator = (...args: string[]) => failure(operatorCommand(), [...args, ...URL_OPTION])
const device = (...args: string[]) => failure(deviceCommand(), args)
const register = (...args: string[]) => operator('authority', 'register', ...args)

await t.test('in the place of a key', async t => {
  const commands: Record<string, (name: string) => Promise<Told>> = {
    verify: name => failure(verifyCommand(), [at('cert.pem'), '--key', at(name)]),
    'authority register': name => register(at('ca.pem'), '--ca-key', at(name)),
    'device enroll': name => device('enroll', '--out', folderWith({ privateKey: name }, false), '--serial', 'SN-1', '--token-file', at('prose-of-one-word'), ...URL_OPTION),
    'device renew': name => device('renew', '--dir', folderWith({ privateKey: name }), ...URL_OPTION),
    'device connect': name => device('connect', '--dir', folderWith({ privateKey: name })),
    'line vend': name => failure(lineCommand(), ['vend', listFor(name), '--out', at('line'), '--generate-keys', ...URL_OPTION])
  }
  writeFileSync(at('prose-of-one-word'), 'a-token')
  for (const [command, fail] of Object.entries(commands)) {
    for (const name of NO_KEY) {
      // A passphrase is asked for where it is taken.
      if (name === 'encrypted.pem' && command === 'authority register') continue
      const { message, text } = await fail(name)
      t.match(message, /^the private key in .*(?:\/iot-private\.pem\.key|\/[^/]+) cannot be read$/, `${command}, ${name}`)
      t.match(text, `It is ${KINDS[name]}`, `${command}, ${name}: is told`)
      sayNothing(t, text, name)
    }
    t.match((await fail('broken.pem')).text, /It is a private key in PEM that is damaged/, command)
  }
})

await t.test('in the place of a certificate', async t => {
  const commands: Record<string, (name: string) => Promise<Told>> = {
    verify: name => failure(verifyCommand(), [at(name)]),
    'verify --ca': name => failure(verifyCommand(), [at('cert.pem'), '--ca', at(name)]),
    'register-certificate': name => operator('register-certificate', 'SN-1', at(name)),
    'authority register': name => register(at(name), '--ca-key', at('key.pem')),
    'authority register --verification': name => register(at('ca.pem'), '--verification', at(name)),
    'authority register --intermediates': name => register(at('ca.pem'), '--mode', 'sni-only', '--intermediates', at(name)),
    'authority set --intermediates': name => operator('authority', 'set', '0'.repeat(64), '--intermediates', at(name)),
    '--ca': name => operator('list', '--ca', at(name)),
    'device connect': name => device('connect', '--dir', folderWith({ certificate: name })),
    'device connect, root CA': name => device('connect', '--dir', folderWith({ rootCa: name }))
  }
  for (const [command, fail] of Object.entries(commands)) {
    for (const name of NO_CERTIFICATE) {
      const { message, text } = await fail(name)
      t.match(message, /\/[^/]+ is not a certificate$/, `${command}, ${name}`)
      t.match(text, `It is ${KINDS[name]}`, `${command}, ${name}: is told`)
      sayNothing(t, text, name)
    }
    t.match((await fail('broken-cert.pem')).text, /It is a certificate that is damaged/, command)
    const withKey = await fail('key.pem')
    t.match(withKey.text, 'It is a private key in PEM', `${command}: a key`)
  }
  for (const fail of [commands['register-certificate'], commands['authority register'], commands['authority set --intermediates']]) {
    t.match((await fail?.('both.pem'))?.message, /both\.pem holds a private key; give the certificate alone$/, 'a key beside it is not sent')
    t.match((await fail?.('key.der'))?.message, /key\.der holds a private key/, 'also in DER')
  }
  t.match((await commands['authority register']?.('chain.pem'))?.message, /chain\.pem holds 2 certificates$/)
})

await t.test('a key in DER in a device\'s folder', async t => {
  t.equal(await readPrivateKey(folderWith({ privateKey: 'sec1.der' })), privateKey)
})

await t.test('in the place of a request', async t => {
  for (const name of ['cert.pem', 'cert.der', 'key.pem', 'key.der', 'public.der', 'empty', 'path', 'bundle.p12', 'binary']) {
    writeFileSync(at('requests.csv'), `serialNumber,registrationToken,csrFile\nSN-1,a-token-0123456789,${name}\n`)
    const { message, text } = await failure(lineCommand(), ['vend', at('requests.csv'), '--out', at('line'), ...URL_OPTION])
    t.match(message, `/${name} does not hold one certificate signing request`)
    t.match(text, `It is ${KINDS[name]}`, name)
    sayNothing(t, text, name)
  }
})

await t.test('a key of another certificate', async t => {
  writeFileSync(at('other.key'), authority.issue('/CN=other').privateKey)
  const { text } = await device('connect', '--dir', folderWith({ privateKey: 'other.key' }))
  t.match(text, /the private key in \S+iot-private\.pem\.key is not that of the certificate in \S+iot-certificate\.pem\.crt/)
  sayNothing(t, text, 'other.key')
  t.match((await register(at('ca.pem'), '--ca-key', at('broken.pem'))).message, /broken\.pem cannot be read/)
})

await t.test('in the place of a secret, or of JSON', async t => {
  for (const name of ['key.pem', 'cert.pem', 'prose', 'binary']) {
    const apiKey = await operator('list', '--key-file', at(name))
    t.match(apiKey.text, `the API key in ${at(name)} is not one word of ASCII characters`)
    t.match(apiKey.text, `It is ${KINDS[name]}`)
    const token = await device('enroll', '--out', at('new'), '--serial', 'SN-1', '--token-file', at(name), ...URL_OPTION)
    t.match(token.text, `the registration token in ${at(name)} is not one word`)
    t.match((await operator('register', 'SN-1', '--token-file', at(name))).text, `the registration token in ${at(name)} is not one word`)
    const json = await device('enroll', '--out', at('new'), '--device-file', at(name), ...URL_OPTION)
    t.match(json.text, `${at(name)} is not a JSON object`)
    t.match(json.text, `It is ${KINDS[name]}`)
    for (const { text } of [apiKey, token, json]) sayNothing(t, text, name)
  }
  writeFileSync(at('utf16-token'), utf16('a-token\r\n'))
  t.equal((await readText(at('utf16-token'))).trim(), 'a-token', 'UTF-16 is read')
})

await t.test('a reader that has seen enough: exit code 0, and no stack trace', async t => {
  for (const args of [['--help'], ['keys', 'create', '--name', 'a', '--role', 'line']]) {
    const child = spawn(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout.destroy()
    const ended = once(child, 'close')
    t.match([await text(child.stderr), ...await ended], ['', 0, null], args.join(' '))
  }
})

interface Told { message: string, text: string }

/** How a command fails, in words. */
async function failure (command: Command, args: string[]): Promise<Told> {
  const error = await quiet(command).parseAsync(args, { from: 'user' }).then(() => new Error('it did not fail'), (error: unknown) => error)
  return { message: error instanceof Failure ? error.message : `no Failure: ${String(error)}`, text: describe(error) }
}

function quiet (command: Command): Command {
  for (const each of [command, ...command.commands, ...command.commands.flatMap(({ commands }) => commands)]) each.exitOverride()
  return command
}

/** Neither OpenSSL's codes nor anything of the file. */
function sayNothing (t: Test, text: string, name: string): void {
  t.notMatch(text, /[0-9A-F]{8}:|routines|asn1|\n {4}at /i, 'no words of OpenSSL')
  const content = readFileSync(at(name), 'latin1').split('\n').map(line => line.trim()).filter(line => line.length > 20 && !line.startsWith('-----'))
  t.notOk(content.some(line => text.includes(line)), 'nothing of the file')
}

/** The folder of an enrolled device, with another file in the place of one of its own. */
function folderWith (changes: Partial<Record<keyof typeof FILES, string>>, isEnrolled = true): string {
  const folder = at(`device-${++folders}`)
  mkdirSync(folder)
  const own = { certificate: 'cert.pem', privateKey: 'key.pem', rootCa: 'ca.pem', ...changes }
  for (const [name, source] of Object.entries(own)) writeFileSync(join(folder, FILES[name as keyof typeof FILES]), readFileSync(at(source)))
  chmodSync(join(folder, FILES.privateKey), 0o600)
  if (isEnrolled) writeFileSync(join(folder, FILES.device), JSON.stringify(vendAnswer(authority, readFileSync(at('csr.pem'), 'utf8'), 'SN-1')))
  return folder
}

/** A list of one device, whose folder has this file for its key. */
function listFor (name: string): string {
  const serialNumber = `line-${++folders}`
  mkdirSync(join(at('line'), serialNumber), { recursive: true })
  const key = join(at('line'), serialNumber, FILES.privateKey)
  writeFileSync(key, readFileSync(at(name)))
  chmodSync(key, 0o600)
  const list = at(`${serialNumber}.csv`)
  writeFileSync(list, `serialNumber,registrationToken\n${serialNumber},a-token-0123456789\n`)
  return list
}

await t.test('a folder in the place of a file, and a file that is missing, are said in words', async t => {
  const folder = t.testdir({ device: { [FILES.privateKey]: {} } })
  t.match(await told(readPrivateKey(join(folder, 'device'))), /cannot read .*iot-private\.pem\.key\n +detail: +It is a folder, not a file\n/, 'whatever its mode is')
  t.match(await told(readText(join(folder, 'device'))), /It is a folder, not a file/)
  t.match(await told(readText(join(folder, 'missing'))), /cannot read .*missing\n +detail: +There is no such file\n/)
  t.match(await told(readText(at('key.pem/x'))), /A part of its path is a file/)
})

async function told (work: Promise<unknown>): Promise<string> {
  return await work.then(() => 'nothing', describe)
}
