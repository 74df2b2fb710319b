// The post on just-in-time registration (seed 002), typed into a shell: AWS CLI, openssl and mosquitto against the local AWS IoT Core.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Test } from 'tap'
import { start } from './processes.ts'
import { startLocalAws } from './service-process.ts'
import { type Shell, hasAwsCli, shell } from './shell.ts'
import { CUT_OFF, hasMosquitto, hasTool, isWholeRun } from './tools.ts'

interface Named { readonly certificateId: string, readonly certificateArn: string }
interface Described { readonly certificateDescription: { readonly status: string, readonly autoRegistrationStatus?: string } }
interface Listed { readonly certificates: ReadonlyArray<Named & { readonly status: string }> }

// Each aws is a Python of its own: half a second, or two on a busy machine.
t.setTimeout(900_000)

/** What is typed when openssl asks: country, state, locality, organization, unit, common name, e-mail, and two attributes of a CSR. */
const answers = (commonName: string): string => `US\nWA\nSeattle\nAcme\nDevices\n${commonName}\n\n\n\n`

/** A device's key and certificate, signed by the sample CA, and the chain the post has the device send. */
async function makeDevice ({ must }: Shell, name: string): Promise<void> {
  await must(`openssl genrsa -out ${name}.key 2048`)
  await must(`openssl req -new -key ${name}.key -out ${name}.csr`, answers(name))
  await must(`openssl x509 -req -in ${name}.csr -CA sampleCACertificate.pem -CAkey sampleCACertificate.key -CAcreateserial -out ${name}.crt -days 365 -sha256`)
  await must(`cat ${name}.crt sampleCACertificate.pem > ${name}AndCACert.crt`)
}

const untested = 'the AWS CLI in the order of the posts'
const found = isWholeRun(t, untested) && await hasAwsCli(t, untested) && await hasMosquitto(t) && await hasTool(t, ['stdbuf', '--help'], 'Debian: coreutils', untested)
if (found) await t.test('just-in-time registration, as the post has it', jitr)

async function jitr (t: Test): Promise<void> {
  const local = await startLocalAws(t, { name: 'dynalite' })
  const sh = shell(t, local)
  const { must, refused, run } = sh
  const [host = '', port = ''] = new URL(local.mqttUrl).host.replace('127.0.0.1', 'localhost').split(':')
  await must(`cp ${local.rootCa} root.cert`)

  /** The post's command line; only host, port and what is named here differ. */
  const publish = async (name: string, topic = 'foo/bar', id = 'anyclientID') =>
    await run(`mosquitto_pub --cafile root.cert --cert ${name}AndCACert.crt --key ${name}.key -h ${host} -p ${port} -q 1 -t  ${topic} -i  ${id} --tls-version tlsv1.2 -m "Hello" -d`)
  const goesThrough = async (name: string, why: string) => {
    const { code, stdout, stderr } = await publish(name)
    t.equal(code, 0, `mosquitto_pub succeeds: ${why} ${stderr}`)
    t.match(stdout, 'received PUBACK', 'the broker took the message')
  }
  const fails = async (why: string, ...args: Parameters<typeof publish>) => {
    const { code, stdout, stderr } = await publish(...args)
    t.not(code, 0, `mosquitto_pub fails: ${why}`)
    t.match(stderr, CUT_OFF)
    t.notMatch(stdout, 'received PUBACK')
  }
  const byCa = async () => (await must<Listed>(`aws iot list-certificates-by-ca --ca-certificate-id ${ca.certificateId}`)).certificates
  const statusOf = async (id: string) => (await must<Described>(`aws iot describe-certificate --certificate-id ${id}`)).certificateDescription.status

  // Registering Your CA Certificate
  await must('openssl genrsa -out sampleCACertificate.key 2048')
  await must('openssl req -x509 -new -nodes -key sampleCACertificate.key -sha256 -days 365 -out sampleCACertificate.pem', answers('Sample CA'))
  const { registrationCode } = await must<{ registrationCode: string }>('aws iot get-registration-code')
  t.match(registrationCode, /^[0-9a-f]{64}$/)
  t.same(await must('aws iot get-registration-code'), { registrationCode }, 'the code is long-lived')
  await must('openssl genrsa -out privateKeyVerification.key 2048')
  const verification = async (commonName: string) => {
    await must('openssl req -new -key privateKeyVerification.key -out privateKeyVerification.csr', answers(commonName))
    await must('openssl x509 -req -in privateKeyVerification.csr -CA sampleCACertificate.pem -CAkey sampleCACertificate.key -CAcreateserial -out privateKeyVerification.crt -days 365 -sha256')
  }
  const register = 'aws iot register-ca-certificate --ca-certificate file://sampleCACertificate.pem --verification-certificate file://privateKeyVerification.crt'
  await verification('another code')
  await refused(register, 'RegistrationCodeValidationException')
  await must(`openssl req -new -x509 -key privateKeyVerification.key -sha256 -days 365 -subj /CN=${registrationCode} -out selfSigned.crt`)
  await refused(register.replace('privateKeyVerification.crt', 'selfSigned.crt'), 'CertificateValidationException')
  await verification(registrationCode)
  const ca = await must<Named>(register)
  t.match(ca.certificateArn, `:cacert/${ca.certificateId}`)
  await refused(register, 'ResourceAlreadyExistsException')
  const describeCa = async () => (await must<Described>(`aws iot describe-ca-certificate --certificate-id ${ca.certificateId}`)).certificateDescription
  t.match(await describeCa(), { status: 'INACTIVE', autoRegistrationStatus: 'DISABLE' }, 'as the post says, by default')

  // A device that comes too early, and one that is registered explicitly.
  for (const name of ['deviceCert', 'explicitCert', 'lateCert']) await makeDevice(sh, name)
  const explicit = 'aws iot register-certificate --certificate-pem file://explicitCert.crt --ca-certificate-pem file://sampleCACertificate.pem --status ACTIVE'
  await refused(explicit, 'CertificateStateException')
  await must(`aws iot update-ca-certificate --certificate-id ${ca.certificateId} --new-status ACTIVE`)
  t.match(await describeCa(), { status: 'ACTIVE', autoRegistrationStatus: 'DISABLE' })
  await fails('auto-registration is disabled', 'deviceCert')
  t.same(await byCa(), [], 'so nothing was registered')
  const registered = await must<Named>(explicit)
  await refused(explicit, 'ResourceAlreadyExistsException')
  t.equal(await statusOf(registered.certificateId), 'ACTIVE')
  await must(`aws iot update-ca-certificate --certificate-id ${ca.certificateId} --new-auto-registration-status ENABLE`)
  t.match(await describeCa(), { status: 'ACTIVE', autoRegistrationStatus: 'ENABLE' })

  // Creating an AWS Lambda Rule; its Lambda is what we do by hand below.
  writeFileSync(join(sh.dir, 'rule.json'), JSON.stringify({
    sql: `SELECT * FROM '$aws/events/certificates/registered/${ca.certificateId}'`,
    awsIotSqlVersion: '2016-03-23-beta',
    actions: [
      { lambda: { functionArn: 'arn:aws:lambda:us-east-1:000000000000:function:deviceActivation' } },
      { dynamoDBv2: { roleArn: 'arn:aws:iam::000000000000:role/rule', putItem: { tableName: 'registered' } } }
    ]
  }))
  await must('aws iot create-topic-rule --rule-name JITRRule --topic-rule-payload file://rule.json')
  await refused('aws iot create-topic-rule --rule-name JITRRule --topic-rule-payload file://rule.json', 'ResourceAlreadyExistsException')
  t.match(await must('aws iot get-topic-rule --rule-name JITRRule'), { rule: { awsIotSqlVersion: '2016-03-23-beta', ruleDisabled: false } })

  // Auto-registration of a Device Certificate Signed by Your CA Certificate
  await fails('the first connection registers', 'deviceCert')
  const fresh = (await byCa()).filter(({ certificateId }) => certificateId !== registered.certificateId)
  const [device, ...more] = fresh as [Listed['certificates'][number]]
  t.match([device.status, more], ['PENDING_ACTIVATION', []])
  const fingerprint = await must<string>('openssl x509 -in deviceCert.crt -noout -fingerprint -sha256')
  t.equal(fingerprint.trim().replace(/.*=|:/g, '').toLowerCase(), device.certificateId, 'the certificate id is the fingerprint')
  t.match(await must(`aws iot describe-certificate --certificate-id ${device.certificateId}`), { certificateDescription: { caCertificateId: ca.certificateId } })
  for (const action of ['lambda', 'dynamoDBv2']) {
    await local.said(output => output.split('\n').find(line => line.includes(`"action":"${action}"`) && line.includes('not delivered')))
    t.pass(`the log says that ${action} was not delivered`)
  }
  await fails('PENDING_ACTIVATION does not get in', 'deviceCert')

  // What the post's Lambda does: a policy, attached, and the certificate activated.
  const arn = 'arn:aws:iot:us-east-1:000000000000'
  writeFileSync(join(sh.dir, 'policy.json'), JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      { Effect: 'Allow', Action: ['iot:Connect'], Resource: [`${arn}:client/anyclientID*`] },
      { Effect: 'Allow', Action: ['iot:Publish', 'iot:Receive'], Resource: [`${arn}:topic/foo/bar`] },
      { Effect: 'Allow', Action: ['iot:Subscribe'], Resource: [`${arn}:topicfilter/foo/bar`] }
    ]
  }))
  await must('aws iot create-policy --policy-name Policy_foo --policy-document file://policy.json')
  await refused('aws iot create-policy --policy-name Policy_foo --policy-document file://policy.json', 'ResourceAlreadyExistsException')
  await must(`aws iot attach-principal-policy --policy-name Policy_foo --principal ${device.certificateArn}`)
  await must(`aws iot attach-policy --policy-name Policy_foo --target ${registered.certificateArn}`)
  t.match(await must(`aws iot list-principal-policies --principal ${device.certificateArn}`), { policies: [{ policyName: 'Policy_foo' }] })
  t.same((await must<{ targets: string[] }>('aws iot list-targets-for-policy --policy-name Policy_foo')).targets.sort(),
    [device.certificateArn, registered.certificateArn].sort())
  await must(`aws iot update-certificate --certificate-id ${device.certificateId} --new-status ACTIVE`)
  // Line by line, because mosquitto_sub keeps back what it says to a pipe.
  const inDir = (file: string) => join(sh.dir, file)
  const files = ['--cafile', inDir('root.cert'), '--cert', inDir('explicitCertAndCACert.crt'), '--key', inDir('explicitCert.key')]
  const options = ['-h', host, '-p', port, '-q', '1', '-t', 'foo/bar', '-i', 'anyclientID-2', '--tls-version', 'tlsv1.2', '-d']
  const subscriber = start(t, 'stdbuf', ['-oL', 'mosquitto_sub', ...files, ...options], {})
  const counted = (what: RegExp, times: number) => subscriber.said(output => (output.match(what) ?? []).length >= times || undefined)
  await counted(/Subscribed \(mid: 1\): 1/g, 1)
  await goesThrough('deviceCert', 'the certificate is ACTIVE now')
  await counted(/^Hello$/gm, 1)
  t.pass('and the message is delivered to mosquitto_sub, with the certificate that was registered explicitly')
  await fails('a topic outside the policy', 'deviceCert', 'foo/baz')
  await fails('a client id outside the policy', 'deviceCert', 'foo/bar', 'other')

  // Deactivate the CA Certificate
  await must(`aws iot update-ca-certificate --certificate-id ${ca.certificateId} --new-status INACTIVE`)
  await fails('a new device of a CA that is INACTIVE', 'lateCert')
  t.equal((await byCa()).length, 2, 'is not registered')
  await refused(explicit.replace('explicitCert', 'lateCert'), 'CertificateStateException')
  await goesThrough('deviceCert', 'devices that were registered before stay')
  await counted(/^Hello$/gm, 2)

  // Revoke the Device Certificate
  await must(`aws iot update-certificate --certificate-id ${registered.certificateId} --new-status REVOKED`)
  // Some versions of mosquitto_sub end with the session, others connect again.
  await counted(/sending CONNECT/g, 2).catch(async () => await subscriber.ended)
  t.equal((subscriber.output().match(/CONNACK \(0\)/g) ?? []).length, 1, 'the session ended, and its client does not get in again')
  await subscriber.stop()
  t.same(new Map((await byCa()).map(({ certificateId, status }) => [certificateId, status])),
    new Map([[registered.certificateId, 'REVOKED'], [device.certificateId, 'ACTIVE']]))
  for (const status of ['ACTIVE', 'INACTIVE']) {
    await refused(`aws iot update-certificate --certificate-id ${registered.certificateId} --new-status ${status}`, 'CertificateStateException')
  }
  await must(`aws iot update-certificate --certificate-id ${device.certificateId} --new-status REVOKED`)
  await fails('REVOKED', 'deviceCert')

  // Taking it all down, in the order AWS demands.
  await refused('aws iot delete-policy --policy-name Policy_foo', 'DeleteConflictException')
  for (const { certificateId, certificateArn } of [device, registered]) {
    await refused(`aws iot delete-certificate --certificate-id ${certificateId}`, 'DeleteConflictException')
    await must(`aws iot detach-principal-policy --policy-name Policy_foo --principal ${certificateArn}`)
    await must(`aws iot delete-certificate --certificate-id ${certificateId}`)
    await refused(`aws iot describe-certificate --certificate-id ${certificateId}`, 'ResourceNotFoundException')
  }
  await must('aws iot delete-policy --policy-name Policy_foo')
  await must(`aws iot update-ca-certificate --certificate-id ${ca.certificateId} --new-status ACTIVE`)
  await refused(`aws iot delete-ca-certificate --certificate-id ${ca.certificateId}`, 'CertificateStateException')
  await must(`aws iot update-ca-certificate --certificate-id ${ca.certificateId} --new-status INACTIVE`)
  await must(`aws iot delete-ca-certificate --certificate-id ${ca.certificateId}`)
  await must('aws iot delete-topic-rule --rule-name JITRRule')
  await must('aws iot delete-registration-code')
  t.not((await must<{ registrationCode: string }>('aws iot get-registration-code')).registrationCode, registrationCode, 'a deleted code is gone for good')
}
