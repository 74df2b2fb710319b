// `cvm operator authority` against the service over local mode's AWS, with openssl's CAs: RSA and EC, encrypted keys, two of one name.
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RegisterCertificateCommand } from '@aws-sdk/client-iot'
import t from 'tap'
import { startService } from '../fixtures/service.ts'
import { cvm, onTerminal } from './command.ts'

t.setTimeout(900_000)

const KEY = `cvm_${randomBytes(32).toString('base64url')}`
const PASSPHRASE = 'correct horse'
const API_KEYS = `ada:operator:${createHash('sha256').update(KEY).digest('hex')}`
const service = await startService({ API_KEYS, MAX_EVENT_LOOP_DELAY_MS: '600000' })
const url = await service.app.service.listen({ host: '127.0.0.1', port: 0 })
const dir = mkdtempSync(join(tmpdir(), 'cvm-authority-'))
t.teardown(async () => { rmSync(dir, { recursive: true }); await service.close() })

const ENV = { CVM_API_KEY: KEY }
const authority = (...args: string[]) => cvm(['operator', 'authority', ...args, '--url', url], { env: ENV })
const at = (name: string) => join(dir, name)
const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']

/** A CA: `name`.pem and `name`.key; its id. */
function makeCa (name: string, subject: string, key: string[] = EC, protection = ['-nodes']): string {
  openssl('req', '-x509', ...key, ...protection, '-subj', subject, '-days', '30', '-keyout', `${name}.key`, '-out', `${name}.pem`, '-addext', 'keyUsage=critical,keyCertSign,cRLSign')
  return new X509Certificate(readFileSync(at(`${name}.pem`))).fingerprint256.replaceAll(':', '').toLowerCase()
}

async function json (...args: string[]): Promise<Record<string, unknown>> {
  const { status, stdout, stderr } = await authority(...args, '--json')
  t.equal(status, 0, stderr)
  return JSON.parse(stdout) as Record<string, unknown>
}

await t.test('RSA and EC, plain and encrypted: the key signs here, and is sent nowhere', async t => {
  writeFileSync(at('passphrase'), `${PASSPHRASE}\n`)
  const protection = ['-passout', `pass:${PASSPHRASE}`]
  const cases: [string, string[], string[]][] = [
    ['ec', EC, ['-nodes']],
    ['rsa', ['-newkey', 'rsa:2048'], ['-nodes']],
    ['ec-384', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'], ['-nodes']],
    ['encrypted', ['-newkey', 'rsa:2048'], protection],
    ['traditional', EC, ['-nodes']]
  ]
  await Promise.all(cases.map(async ([name, key, protect]) => {
    const id = makeCa(name, `/O=Factory/CN=${name} CA`, key, protect)
    if (name === 'traditional') openssl('ec', '-in', 'traditional.key', '-aes256', ...protection, '-out', 'traditional.key')
    const proof = ['--ca-key', at(`${name}.key`), ...['encrypted', 'traditional'].includes(name) ? ['--passphrase-file', at('passphrase')] : []]
    const { status, stdout, stderr } = await authority('register', at(`${name}.pem`), ...proof)
    t.equal(status, 0, stderr)
    t.match(stdout, new RegExp(`^O=Factory, CN=${name} CA is registered\nauthority +${id}\nstatus +INACTIVE\nauto-registration  off\nmode +DEFAULT\n`))
    t.match(stdout, /No CRL is set: no certificate of it is taken yet/)
  }))
  t.match((await authority('register', at('ec.pem'), '--ca-key', at('ec.key'))).stdout, /is registered, as it was before\n/)
  t.notMatch(service.logs(), /PRIVATE KEY/)
})

await t.test('a passphrase that is wrong, or nowhere; a key that is another\'s, or none', async t => {
  makeCa('other', '/CN=Other CA')
  writeFileSync(at('wrong'), 'wrong')
  writeFileSync(at('garbage'), 'garbage')
  const register = (...args: string[]) => authority('register', at('encrypted.pem'), ...args)
  const cases: [string[], number, RegExp][] = [
    [['--ca-key', at('encrypted.key'), '--passphrase-file', at('wrong')], 1, /passphrase is wrong/],
    [['--ca-key', at('encrypted.key')], 2, /is encrypted[^]*--passphrase-file/],
    [['--ca-key', at('other.key')], 1, /the key is not that of the CA certificate/],
    [['--ca-key', at('garbage')], 1, /cannot be read/],
    [['--ca-key', at('nowhere')], 1, /cannot read/],
    [[], 2, /one of --ca-key and --verification is needed/],
    [['--ca-key', at('encrypted.key'), '--verification', at('garbage')], 2, /one of/],
    [['--mode', 'sni-only', '--ca-key', at('encrypted.key')], 2, /takes no proof/],
    [['--verification', at('garbage'), '--passphrase-file', at('wrong')], 2, /goes with --ca-key/]
  ]
  await Promise.all(cases.map(async ([args, status, stderr]) => t.match(await register(...args), { status, stderr }, args.join(' '))))
})

await t.test('the passphrase is asked for on a terminal, and not shown', async t => {
  makeCa('asked', '/CN=Asked CA', EC, ['-passout', `pass:${PASSPHRASE}`])
  const args = ['operator', 'authority', 'register', at('asked.pem'), '--ca-key', at('asked.key'), '--url', url]
  const shown = await onTerminal(args, ENV, text => text.includes('Passphrase of') ? `${PASSPHRASE}\r` : undefined)
  t.match(shown, /CN=Asked CA is registered/)
  t.notMatch(shown, PASSPHRASE)
})

await t.test('a verification certificate made elsewhere, and --mode sni-only without one', async t => {
  const id = makeCa('hsm', '/CN=HSM CA')
  const code = (await authority('code')).stdout.trim()
  t.match(code, /^[0-9a-f]{64}$/)
  openssl('req', '-new', ...EC, '-nodes', '-subj', `/CN=${code}`, '-keyout', 'v.key', '-out', 'v.csr')
  openssl('x509', '-req', '-in', 'v.csr', '-CA', 'hsm.pem', '-CAkey', 'hsm.key', '-days', '1', '-out', 'v.pem')
  t.match(await json('register', at('hsm.pem'), '--verification', at('v.pem'), '--active', '--auto-registration'),
    { caCertificateId: id, mode: 'DEFAULT', status: 'ACTIVE', autoRegistration: true })
  makeCa('sni', '/CN=SNI CA')
  t.match(await json('register', at('sni.pem'), '--mode', 'sni-only', '--crl', 'https://pki.example/a.crl', '--crl', 'http://pki.example/b.crl', '--product', 'default'),
    { mode: 'SNI_ONLY', crls: ['https://pki.example/a.crl', 'http://pki.example/b.crl'], products: ['default'] })
})

await t.test('two CAs with one name are two authorities, each with its own certificates', async t => {
  const ids = ['twin-1', 'twin-2'].map(name => makeCa(name, '/CN=Twin CA'))
  for (const name of ['twin-1', 'twin-2']) await json('register', at(`${name}.pem`), '--ca-key', at(`${name}.key`), '--active')
  const listed = (await authority('list')).stdout
  for (const id of ids) t.match(listed, new RegExp(`^${id}  ACTIVE +off +CN=Twin CA +\\d`, 'm'))
  openssl('req', '-new', ...EC, '-nodes', '-subj', '/CN=sn-1', '-keyout', 'd.key', '-out', 'd.csr')
  openssl('x509', '-req', '-in', 'd.csr', '-CA', 'twin-2.pem', '-CAkey', 'twin-2.key', '-days', '1', '-out', 'd.pem')
  const [certificatePem, caCertificatePem] = ['d.pem', 'twin-2.pem'].map(name => readFileSync(at(name), 'utf8'))
  const { certificateId = '' } = await service.iot.send(new RegisterCertificateCommand({ certificatePem, caCertificatePem, status: 'ACTIVE' }))
  t.match(await authority('certificates', ids[0] as string), { status: 0, stdout: /^CERTIFICATE +STATUS +REGISTERED AT\n$/ })
  t.match((await authority('certificates', ids[1] as string)).stdout, new RegExp(`\n${certificateId}  ACTIVE  \\d{4}-`))

  t.match(await authority('delete', ids[1] as string), { status: 3, stderr: /authority-active/ })
  t.match((await authority('deactivate', ids[1] as string)).stdout, /status +INACTIVE/)
  t.match(await authority('delete', ids[1] as string), { status: 3, stderr: /authority-in-use/ })
  t.match(await authority('delete', ids[1] as string, '--force'), { status: 0, stdout: `${ids[1]} is deleted\n` })
  t.match(await authority('show', ids[1] as string), { status: 3, stderr: /authority-not-found/ })
})

await t.test('set: what is given, and what is taken away', async t => {
  const id = makeCa('set', '/CN=Set CA')
  await json('register', at('set.pem'), '--mode', 'sni-only')
  openssl('req', '-new', ...EC, '-nodes', '-subj', '/CN=Line CA', '-keyout', 'line.key', '-out', 'line.csr')
  writeFileSync(at('line.ext'), 'basicConstraints=critical,CA:TRUE')
  openssl('x509', '-req', '-in', 'line.csr', '-CA', 'set.pem', '-CAkey', 'set.key', '-extfile', 'line.ext', '-days', '10', '-out', 'line.pem')
  t.match(await json('set', id, '--without-crl', 'accept', '--crl', 'http://pki.example/', '--product', 'default', '--intermediates', at('line.pem'), '--auto-registration', 'on'),
    { whenCrlUnavailable: 'accept', crls: ['http://pki.example/'], products: ['default'], intermediatesPem: /BEGIN/, autoRegistration: true })
  const { stdout } = await authority('show', id)
  for (const line of [/^subject +CN=Set CA$/m, /^CRLs +http:\/\/pki.example\/$/m, /^without CRL +accept$/m, /^products +default$/m, /^intermediates +1$/m, /^revision +1$/m]) t.match(stdout, line)
  t.ok(stdout.endsWith(readFileSync(at('set.pem'), 'utf8')))
  t.match(await authority('set', id, '--no-crls', '--if-match', '0'), { status: 3, stderr: /precondition-failed/ })
  const bare = await json('set', id, '--no-crls', '--all-products', '--no-intermediates', '--without-crl', 'refuse', '--auto-registration', 'off', '--if-match', '1')
  t.match(bare, { crls: [], whenCrlUnavailable: 'refuse', autoRegistration: false, products: undefined, intermediatesPem: undefined })
  t.match((await authority('activate', id)).stdout, /status +ACTIVE[^]*No CRL is set/)
  t.match(await authority('set', id), { status: 2, stderr: /nothing to set/ })
  t.match(await authority('set', id, '--crl', '../a.crl'), { status: 3, stderr: /crl-not-an-address/ })
  t.match(await json('show', id), { caCertificateId: id, revision: 2 })
})

await t.test('lists as JSON lines', async t => {
  const { stdout } = await authority('list', '--json')
  const lines = stdout.trim().split('\n').map(line => JSON.parse(line) as { subject: string })
  t.equal(lines[0]?.subject, 'CN=Set CA', 'newest first')
  t.ok(lines.length > 5)
})
