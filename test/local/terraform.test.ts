// Terraform's AWS provider, unmodified, against the local AWS IoT: what it makes it finds again, unchanged, and can take away.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { GetRegistrationCodeCommand, ListCACertificatesCommand, ListCertificatesCommand, ListPoliciesCommand, ListThingsCommand } from '@aws-sdk/client-iot'
import t from 'tap'
import { findMirror, mirrorSettings, terraform } from '../fixtures/terraform.ts'
import { selfSigned } from './maker.ts'
import { opensslCsr, P256, startRig } from './rig.ts'

t.setTimeout(900_000)
const found = findMirror()
await t.test('made, found unchanged, changed and taken away, twice', { skip: 'missing' in found ? found.missing : false }, async t => {
  if ('missing' in found) return
  const { local, iot, close } = await startRig()
  t.teardown(close)
  const [ca, sni] = [await selfSigned({ name: 'CN=Terraform' }), await selfSigned({ name: 'CN=Terraform SNI' })]
  const { registrationCode } = await iot.send(new GetRegistrationCodeCommand({}))
  const { csr, foreign } = opensslCsr(P256)
  const dir = t.testdir({
    'main.tf': readFileSync(path.join(import.meta.dirname, 'terraform.tf'), 'utf8'),
    'terraform.rc': mirrorSettings(found.folder),
    'device.csr': csr,
    'alone.pem': foreign,
    'ca.pem': ca.pem,
    'sni.pem': sni.pem,
    'verification.pem': (await ca.sign({ name: `CN=${registrationCode}` })).pem,
    'device.pem': (await ca.sign()).pem
  })
  const succeeds = async (...args: string[]): Promise<string> => {
    const { code, output } = await terraform(dir, args, { TF_VAR_url: local.iotUrl })
    t.equal(code, 0, `terraform ${args.join(' ')}${code === 0 ? '' : `\n${output}`}`)
    return output
  }

  // Each run starts the provider anew, which takes most of its time; so there are no more of them than it needs.
  await succeeds('init')
  t.match(await succeeds('apply', '-auto-approve'), `registration_code = "${registrationCode}"`)
  // Exit code 2 would say that something differs.
  await succeeds('plan', '-detailed-exitcode')
  t.match(await succeeds('apply', '-auto-approve', '-var=site=s2', '-var=action=iot:*'), '0 added, 3 changed, 0 destroyed')
  // Thing types are deleted five minutes after they are deprecated, and nobody waits that long here.
  await succeeds('state', 'rm', 'aws_iot_thing_type.full', 'aws_iot_thing_type.plain')
  const certificates = async () => (await iot.send(new ListCertificatesCommand({}))).certificates
  t.equal((await certificates())?.length, 4)
  const nothingLeft = async () => {
    t.same(await certificates(), [])
    t.same((await iot.send(new ListCACertificatesCommand({}))).certificates, [])
    t.same((await iot.send(new ListThingsCommand({}))).things, [])
    t.same((await iot.send(new ListPoliciesCommand({}))).policies?.map(({ policyName }) => policyName), ['device-policy'])
  }
  await succeeds('destroy', '-auto-approve')
  await nothingLeft()

  // The same names and certificates again: what was taken away has left nothing in the way.
  await succeeds('apply', '-auto-approve', '-var=types=0')
  await succeeds('plan', '-detailed-exitcode', '-var=types=0')
  await succeeds('destroy', '-auto-approve', '-var=types=0')
  await nothingLeft()
})
