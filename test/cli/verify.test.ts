import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { cvm } from './command.ts'
import { Authority } from './openssl-authority.ts'

const authority = new Authority(t, 'Right')
const forger = new Authority(t, 'Right')
const other = new Authority(t, 'Other')
const good = authority.issue('/O=Acme/CN=SN-1')
const notCa = new Authority(t, 'unused').issue('/CN=unused')
const files = t.testdir({
  'good.crt': good.certificate,
  'good.key': good.privateKey,
  'other.key': notCa.privateKey,
  'expired.crt': authority.issue('/CN=SN-2', undefined, -1).certificate,
  'ca.crt': authority.certificate,
  'forger.crt': forger.certificate,
  'other.crt': other.certificate,
  'bundle.crt': `${other.certificate}\n${authority.certificate}`,
  'rubbish.crt': 'rubbish'
})

const verify = (...args: string[]) => cvm(['verify', ...args.map(arg => arg.startsWith('--') ? arg : join(files, arg))])

await t.test('shows what openssl shows', async t => {
  const { status, stdout } = await verify('good.crt')
  t.equal(status, 0)
  const shown = execFileSync('openssl', ['x509', '-noout', '-serial', '-fingerprint', '-sha256'], { input: good.certificate, encoding: 'utf8' })
  const [serial, fingerprint] = shown.split('\n').map(line => line.split('=')[1]!)
  t.match(stdout, `serial number   ${serial}\n`)
  t.match(stdout, `certificate id  ${fingerprint!.replaceAll(':', '').toLowerCase()}\n`)
  t.match(stdout, 'subject         O=Acme, CN=SN-1\n')
  t.match(stdout, 'issuer          CN=Right\n')
  t.match(stdout, /validity {8}ok: .*, 9 days left\n/)
  t.match(stdout, 'AWS does not publish the chain of its device certificates')
})

await t.test('what holds', async t => {
  for (const ca of ['ca.crt', 'bundle.crt']) {
    const { status, stdout } = await verify('good.crt', '--ca', ca, '--key', 'good.key')
    t.equal(status, 0)
    t.match(stdout, /private key {5}ok: /)
    t.match(stdout, 'ok: issued by CN=Right: name and signature')
  }
})

await t.test('what does not hold: exit code 1 and the reason', async t => {
  const cases: Array<[string[], string]> = [
    [['expired.crt'], 'does not hold: validity'],
    [['good.crt', '--key', 'other.key'], 'does not hold: private key'],
    [['good.crt', '--ca', 'other.crt'], 'does not hold: chain'],
    [['good.crt', '--ca', 'forger.crt'], 'does not hold: chain'],
    [['expired.crt', '--key', 'other.key', '--ca', 'other.crt'], 'does not hold: validity, private key, chain'],
    [['rubbish.crt'], 'is not a certificate'],
    [['good.crt', '--key', 'rubbish.crt'], 'cannot be read'],
    [['good.crt', '--ca', 'rubbish.crt'], 'rubbish.crt is not a certificate'],
    [['missing.crt'], 'cannot read']
  ]
  for (const [args, reason] of cases) {
    const { status, stderr } = await verify(...args)
    t.equal(status, 1, args.join(' '))
    t.match(stderr, reason)
    t.notMatch(stderr, /\n {4}at /, 'no stack trace')
  }
  t.match((await verify('good.crt', '--ca', 'other.crt')).stdout, 'FAILED: not issued by CN=Other\n')
  t.match((await verify('good.crt', '--ca', 'forger.crt')).stdout, /not issued by CN=Right/)
})
