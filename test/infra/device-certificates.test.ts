// The Terraform module of device certificates, applied to the local AWS IoT: the three ways of its document, and what each is worth.
import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'
import {
  DescribeCertificateCommand, ListCACertificatesCommand, ListCertificatesCommand, ListPoliciesCommand, ListThingsCommand,
  RegisterCertificateCommand
} from '@aws-sdk/client-iot'
import t from 'tap'
import { findMirror, mirrorSettings, terraform } from '../fixtures/terraform.ts'
import { connect, openssl, startRig } from '../local/rig.ts'

const MODULE = path.join(import.meta.dirname, '../../infra/device-certificates')

/** A mirror with the stand-in as hashicorp/tls. */
function mirrorOfStandIn (folder: string): string {
  const binaries = path.join(folder, 'registry.terraform.io/hashicorp/tls/4.0.6', `${process.platform}_${process.arch === 'x64' ? 'amd64' : process.arch}`)
  mkdirSync(binaries, { recursive: true })
  const [loader, provider] = [createRequire(import.meta.url).resolve('tsx'), path.join(import.meta.dirname, 'tls-provider.ts')]
  const command = [process.execPath, '--import', pathToFileURL(loader).href, provider].map(each => JSON.stringify(each)).join(' ')
  writeFileSync(path.join(binaries, 'terraform-provider-tls_v4.0.6'), `#!/bin/sh\nunset NODE_OPTIONS\nexec ${command}\n`, { mode: 0o755 })
  return folder
}

t.setTimeout(900_000)
const found = findMirror()
const hasTls = 'folder' in found && existsSync(path.join(found.folder, 'registry.terraform.io/hashicorp/tls'))
const tls = hasTls ? 'hashicorp/tls' : 'a stand-in for hashicorp/tls, which this machine does not have'
await t.test(`self-signed, CA-signed and by an impostor, with ${tls}`, { skip: 'missing' in found ? found.missing : false }, async t => {
  if ('missing' in found) return
  const { local, iot, close } = await startRig()
  t.teardown(close)
  const folder = t.testdir({ mirror: {} })
  cpSync(MODULE, folder, { recursive: true, filter: source => !path.basename(source).startsWith('.terraform') })
  writeFileSync(path.join(folder, 'terraform.rc'), mirrorSettings(found.folder, ...hasTls ? [] : [mirrorOfStandIn(path.join(folder, 'mirror'))]))
  const succeeds = async (...args: string[]): Promise<string> => {
    const { code, output } = await terraform(folder, args, { TF_VAR_iot_url: local.iotUrl, TF_VAR_policy_name: 'device-policy' })
    t.equal(code, 0, `terraform ${args.join(' ')}${code === 0 ? '' : `\n${output}`}`)
    return output
  }
  const outputs = async () => {
    const all = JSON.parse(await succeeds('output', '-json')) as Record<string, { value: string & Record<string, string> }>
    return (name: string) => all[name]?.value ?? t.bailout(name) as never
  }
  const described = async (arn: string) => {
    const { certificateDescription } = await iot.send(new DescribeCertificateCommand({ certificateId: arn.split('/')[1] }))
    return certificateDescription
  }
  const verify = (ca: string, certificate: string) => {
    writeFileSync(path.join(folder, 'ca.pem'), ca)
    writeFileSync(path.join(folder, 'device.pem'), certificate)
    return openssl(['verify', '-CAfile', 'ca.pem', 'device.pem'], { cwd: folder })
  }

  await succeeds('init', '-input=false')
  let caSigned = ''
  await t.test('as the document has it: AWS IoT knows the certificates, and no CA', async t => {
    const printed = await succeeds('apply', '-auto-approve')
    t.notMatch(printed, 'PRIVATE KEY', 'no key is printed')
    const output = await outputs()
    caSigned = output('ca_signed_pem')
    for (const name of ['self_signed', 'ca_signed']) {
      t.match(await described(output('certificate_arns')[name] ?? ''), { status: 'ACTIVE', certificateMode: 'SNI_ONLY', caCertificateId: undefined }, name)
      const client = await connect(local, { cert: output(`${name}_pem`), key: output(`${name}_key`), clientId: output('serial_numbers')[name] ?? '' })
      await client.endAsync()
    }
    t.match(verify(output('ca_pem'), output('ca_signed_pem')), 'device.pem: OK')
    t.match(verify(output('impostor_ca_pem'), output('impostor_pem')), 'device.pem: OK')
    t.throws(() => verify(output('ca_pem'), output('impostor_pem')), /error 20 at 0 depth lookup/, 'the same names are no signature')
    t.throws(() => verify(output('ca_pem'), output('self_signed_pem')), /error (18|20) at 0 depth lookup/)
    const names = (pem: string) => openssl(['x509', '-noout', '-issuer', '-subject'], { input: pem })
    t.equal(names(output('impostor_pem')), names(output('ca_signed_pem')))
  })

  await t.test('with the CA registered, AWS IoT itself tells the impostor', async t => {
    t.match(await succeeds('apply', '-auto-approve', '-var=register_ca=true'), /\d+ added, 0 changed, [1-3] destroyed/, 'keys and certificates stay')
    const output = await outputs()
    t.equal(output('ca_signed_pem'), caSigned)
    const { certificates: [ca] = [] } = await iot.send(new ListCACertificatesCommand({}))
    t.match(await described(output('certificate_arns')['ca_signed'] ?? ''), { status: 'ACTIVE', certificateMode: 'DEFAULT', caCertificateId: ca?.certificateId })
    const impostor = { certificatePem: output('impostor_pem'), caCertificatePem: output('ca_pem') }
    await t.rejects(iot.send(new RegisterCertificateCommand(impostor)), { name: 'CertificateValidationException' })
  })

  await t.test('taken away', async t => {
    await succeeds('destroy', '-auto-approve', '-var=register_ca=true')
    t.same((await iot.send(new ListCertificatesCommand({}))).certificates, [])
    t.same((await iot.send(new ListCACertificatesCommand({}))).certificates, [])
    t.same((await iot.send(new ListThingsCommand({}))).things, [])
    t.same((await iot.send(new ListPoliciesCommand({}))).policies?.map(({ policyName }) => policyName), ['device-policy'])
  })
})
