// Terraform's AWS provider, unmodified, against the local AWS IoT: what it makes it finds again, unchanged, and can take away.
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { promisify } from 'node:util'
import { GetRegistrationCodeCommand, ListCACertificatesCommand, ListCertificatesCommand, ListPoliciesCommand, ListThingsCommand } from '@aws-sdk/client-iot'
import t from 'tap'
import { selfSigned } from './maker.ts'
import { opensslCsr, P256, startRig } from './rig.ts'

const run = promisify(execFile)

/** A folder that holds the provider as a mirror does, or why there is none. */
function mirror (): { folder: string } | { missing: string } {
  try {
    execFileSync('terraform', ['version'], { stdio: 'ignore' })
  } catch {
    return { missing: 'no terraform on this machine' }
  }
  const roots = [process.env['TF_MIRROR'] ?? '', path.join(homedir(), '.terraform.d'), ...children('/opt'), ...children('/usr/share'), ...children('/usr/local/share')]
  const folder = roots.filter(root => root !== '').flatMap(root => [root, path.join(root, 'plugins'), path.join(root, 'providers')])
    .find(root => existsSync(path.join(root, 'registry.terraform.io/hashicorp/aws')))
  return folder === undefined ? { missing: 'no mirror of the provider hashicorp/aws on this machine; TF_MIRROR may name its folder' } : { folder }
}

function children (folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).map(name => path.join(folder, name)) : []
}

t.setTimeout(400_000)
const found = mirror()
await t.test('made, found unchanged, changed and taken away, twice', { skip: 'missing' in found ? found.missing : false, timeout: 390_000 }, async t => {
  if ('missing' in found) return
  const { local, iot, close } = await startRig()
  t.teardown(close)
  const [ca, sni] = [await selfSigned({ name: 'CN=Terraform' }), await selfSigned({ name: 'CN=Terraform SNI' })]
  const { registrationCode } = await iot.send(new GetRegistrationCodeCommand({}))
  const { csr, foreign } = opensslCsr(P256)
  const dir = t.testdir({
    'main.tf': readFileSync(path.join(import.meta.dirname, 'terraform.tf'), 'utf8'),
    'terraform.rc': `provider_installation {\n  filesystem_mirror {\n    path = ${JSON.stringify(found.folder)}\n  }\n}\n`,
    'device.csr': csr,
    'alone.pem': foreign,
    'ca.pem': ca.pem,
    'sni.pem': sni.pem,
    'verification.pem': (await ca.sign({ name: `CN=${registrationCode}` })).pem,
    'device.pem': (await ca.sign()).pem
  })
  const terraform = async (...args: string[]): Promise<{ code: number, output: string }> => {
    const env = { ...process.env, TF_CLI_CONFIG_FILE: path.join(dir, 'terraform.rc'), TF_VAR_url: local.iotUrl, CHECKPOINT_DISABLE: '1' }
    return await run('terraform', [...args, '-no-color'], { cwd: dir, env }).then(
      ({ stdout, stderr }) => ({ code: 0, output: stdout + stderr }),
      (error: { code: number, stdout: string, stderr: string }) => ({ code: error.code, output: error.stdout + error.stderr })
    )
  }
  const succeeds = async (...args: string[]): Promise<string> => {
    const { code, output } = await terraform(...args)
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
