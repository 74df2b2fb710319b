// The posts on the certificate vending machine (seeds 000 and 001), typed into a shell: the AWS CLI does by hand what a CVM does, takes it
// down in the order AWS demands, and registers a device that our service then vends for.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Test } from 'tap'
import { startLocalAws, startService } from './service-process.ts'
import { hasAwsCli, shell } from './shell.ts'
import { CUT_OFF, hasTool, isWholeRun } from './tools.ts'

interface Named { readonly certificateId: string, readonly certificateArn: string, readonly certificatePem: string }

t.setTimeout(900_000)

const untested = 'the AWS CLI in the order of the posts'
const found = isWholeRun(t, untested) && await hasAwsCli(t, untested)
if (found) await t.test('what a certificate vending machine does, by hand', byHand)
if (found) await t.test('shadows', shadows)
const clients: Array<[string, ...string[]]> = [['curl', '--version'], ['jq', '--version'], ['mosquitto_pub', '--help']]
let all = found
for (const client of clients) all &&= await hasTool(t, client, 'Debian: curl, jq, mosquitto-clients', 'the post on the CVM')
if (all) await t.test('the post on the CVM: a device is put into the table, and vended', vend)

async function byHand (t: Test): Promise<void> {
  const local = await startLocalAws(t, { name: 'dynalite' })
  const { dir, must, refused } = shell(t, local)
  const { port } = new URL(local.mqttUrl)

  t.same(await must('aws iot describe-endpoint --endpoint-type iot:Data-ATS'), { endpointAddress: `localhost:${port}` })
  await refused('aws iot describe-endpoint --endpoint-type iot:Data', 'InvalidRequestException')

  const made = await must<Named & { keyPair: Record<string, string> }>('aws iot create-keys-and-certificate --set-as-active --certificate-pem-outfile cert.pem --private-key-outfile private.key')
  t.match(made.keyPair, { PublicKey: /BEGIN PUBLIC KEY/, PrivateKey: /BEGIN RSA PRIVATE KEY/ })
  t.equal(readFileSync(join(dir, 'cert.pem'), 'utf8'), made.certificatePem)
  const [ofKey, ofCertificate] = [await must<string>('openssl pkey -in private.key -pubout'), await must<string>('openssl x509 -in cert.pem -noout -pubkey')]
  t.equal(ofKey, ofCertificate, 'openssl: key and certificate belong together')
  t.notMatch(await must(`aws iot describe-certificate --certificate-id ${made.certificateId}`), { certificateDescription: { keyPair: {} } }, 'the key is told once')

  await must('openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout csr.key -out device.csr -subj /CN=device-2')
  const csr = 'aws iot create-certificate-from-csr --certificate-signing-request file://device.csr'
  const [first, second] = [await must<Named>(csr), await must<Named>(`${csr} --set-as-active`)]
  t.not(first.certificateId, second.certificateId, 'the same CSR again gives another certificate')
  writeFileSync(join(dir, 'second.pem'), second.certificatePem)
  t.equal(await must('openssl pkey -in csr.key -pubout'), await must('openssl x509 -in second.pem -noout -pubkey'))
  writeFileSync(join(dir, 'ruined.csr'), 'no CSR')
  await refused(csr.replace('device.csr', 'ruined.csr'), 'InvalidRequestException')

  writeFileSync(join(dir, 'policy.json'), '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}')
  const thing = await must<{ thingArn: string }>('aws iot create-thing --thing-name device-1 --attribute-payload \'{"attributes":{"RegistrationWay":"CVM"}}\'')
  t.match(thing, { thingName: 'device-1', thingArn: /:thing\/device-1$/ })
  await refused('aws iot create-thing --thing-name device-1', 'ResourceAlreadyExistsException')
  await must('aws iot create-policy --policy-name device-1 --policy-document file://policy.json')
  await must(`aws iot attach-policy --policy-name device-1 --target ${made.certificateArn}`)
  await must(`aws iot attach-thing-principal --thing-name device-1 --principal ${made.certificateArn}`)
  t.same(await must('aws iot list-thing-principals --thing-name device-1'), { principals: [made.certificateArn] })
  t.same(await must(`aws iot list-principal-things --principal ${made.certificateArn}`), { things: ['device-1'] })
  t.match(await must(`aws iot list-attached-policies --target ${made.certificateArn}`), { policies: [{ policyName: 'device-1' }] })
  const listed = await must<{ certificates: Named[] }>('aws iot list-certificates --ascending-order')
  t.same(listed.certificates.map(({ certificateId }) => certificateId), [made, first, second].map(({ certificateId }) => certificateId))

  const remove = `aws iot delete-certificate --certificate-id ${made.certificateId}`
  await refused(remove, 'CertificateStateException')
  await must(`aws iot update-certificate --certificate-id ${made.certificateId} --new-status INACTIVE`)
  await refused(remove, 'DeleteConflictException')
  await refused('aws iot delete-thing --thing-name device-1', 'InvalidRequestException')
  await must(`aws iot detach-thing-principal --thing-name device-1 --principal ${made.certificateArn}`)
  await refused(remove, 'DeleteConflictException')
  await refused('aws iot delete-policy --policy-name device-1', 'DeleteConflictException')
  await must(`aws iot detach-policy --policy-name device-1 --target ${made.certificateArn}`)
  await must(remove)
  await refused(remove, 'ResourceNotFoundException')
  await must('aws iot delete-policy --policy-name device-1')
  await must('aws iot delete-thing --thing-name device-1')
  await refused('aws iot describe-thing --thing-name device-1', 'ResourceNotFoundException')
  await refused('aws iot list-billing-groups', 'UnknownOperationException')
}

async function shadows (t: Test): Promise<void> {
  const { dir, must, refused } = shell(t, await startLocalAws(t, { name: 'dynalite' }))
  const answer = () => JSON.parse(readFileSync(join(dir, 'answer.json'), 'utf8')) as object
  const request = (document: object) => writeFileSync(join(dir, 'shadow.json'), JSON.stringify(document))
  const update = 'aws iot-data update-thing-shadow --thing-name device-1 --payload fileb://shadow.json answer.json'
  const get = 'aws iot-data get-thing-shadow --thing-name device-1 answer.json'

  await refused(get, 'ResourceNotFoundException')
  request({ state: { desired: { deviceAttribute: 'CVM' }, reported: { deviceAttribute: 'none' } } })
  await must(update)
  t.match(answer(), { state: { desired: { deviceAttribute: 'CVM' } }, version: 1, timestamp: Number })
  await must(get)
  t.match(answer(), { state: { reported: { deviceAttribute: 'none' }, delta: { deviceAttribute: 'CVM' } }, metadata: {}, version: 1 })
  request({ state: {}, version: 7 })
  await refused(update, 'ConflictException')
  request({ states: {} })
  await refused(update, 'InvalidRequestException')
  request({ state: { reported: { fill: 'x'.repeat(9000) } } })
  await refused(update, 'RequestEntityTooLargeException')
  request({ state: { reported: { a: 1 } } })
  await must(update.replace('--payload', '--shadow-name config --payload'))
  t.match(await must('aws iot-data list-named-shadows-for-thing --thing-name device-1'), { results: ['config'] })
  await must('aws iot-data delete-thing-shadow --thing-name device-1 answer.json')
  t.match(answer(), { version: 1 })
  await refused(get, 'ResourceNotFoundException')
  t.ok(existsSync(join(dir, 'answer.json')))
  await must('aws iot-data publish --topic devices/device-1/hello --qos 1 --payload fileb://shadow.json')
}

async function vend (t: Test): Promise<void> {
  const service = await startService(t, { name: 'dynalite' }, { DEVICE_TABLE: 'iot-cvm-device-info' })
  const { must, run } = shell(t, service, { ENDPOINT_URL: `${service.serviceUrl}/v1/keys-and-certificates`, ROOT: service.rootCa })

  await must(`aws dynamodb put-item \\
  --table-name iot-cvm-device-info \\
  --item '{"deviceToken":{"S":"1234567890"},"serialNumber":{"S":"devopstar-iot-01"}}'`)

  // The post's script, with our route and the names of its answer.
  await must(`mkdir certs
certificates=$(curl --silent --show-error --fail --cacert "$ROOT" -H 'content-type: application/json' -d @- "$ENDPOINT_URL")
certificatePemCrt=$(echo $certificates | jq '.certificatePem')
certificatePemKey=$(echo $certificates | jq '.keyPair.privateKey')
certificateRootCa=$(echo $certificates | jq '.rootCaPem')
echo -n $certificatePemCrt | sed 's/\\\\n/\\n/g' | sed 's/"//g' > certs/iot-certificate.pem.crt
echo -n $certificatePemKey | sed 's/\\\\n/\\n/g' | sed 's/"//g' > certs/iot-private.pem.key
echo -n $certificateRootCa | sed 's/\\\\n/\\n/g' | sed 's/"//g' > certs/iot-root-ca.crt`, '{"serialNumber":"devopstar-iot-01","registrationToken":"1234567890"}')

  const { endpointAddress } = await must<{ endpointAddress: string }>('aws iot describe-endpoint --endpoint-type iot:Data-ATS')
  const [host, port = '8883'] = endpointAddress.split(':')
  const publish = async (topic: string) => await run(`mosquitto_pub --cafile certs/iot-root-ca.crt --cert certs/iot-certificate.pem.crt --key certs/iot-private.pem.key -h ${host} -p ${port} -q 1 -t ${topic} -i devopstar-iot-01 --tls-version tlsv1.2 -m Hello -d`)
  t.match(await publish('devices/devopstar-iot-01/hello'), { code: 0, stdout: 'received PUBACK' }, 'the three files are all it takes')
  const outside = await publish('devices/devopstar-iot-02/hello')
  t.not(outside.code, 0)
  t.match(outside.stderr, CUT_OFF, 'a topic outside the policy is refused')

  const { principals: [arn = ''] } = await must<{ principals: [string] }>('aws iot list-thing-principals --thing-name devopstar-iot-01')
  const id = arn.split('/')[1] ?? ''
  t.match(await must(`aws iot describe-certificate --certificate-id ${id}`), { certificateDescription: { status: 'ACTIVE' } })
  t.match(await must(`aws iot list-attached-policies --target ${arn}`), { policies: [{ policyName: 'cvm-device-policy' }] })
  const { Item } = await must<{ Item: Record<string, { S?: string }> }>('aws dynamodb get-item --table-name iot-cvm-device-info --key \'{"serialNumber":{"S":"devopstar-iot-01"}}\'')
  t.notOk(JSON.stringify(Item).includes('1234567890'), 'the plain token is gone from the table')
  await must(`aws iot update-certificate --certificate-id ${id} --new-status REVOKED`)
  t.match((await publish('devices/devopstar-iot-01/hello')).stderr, CUT_OFF, 'revoked with the CLI, the device stays out')
}
