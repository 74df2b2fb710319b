import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import { connect as connectTls } from 'node:tls'
import { CreateTableCommand, DescribeTableCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { GetPolicyCommand } from '@aws-sdk/client-iot'
import t from 'tap'
import { connect, openssl, sdkClient, startRig } from './rig.ts'

const MAIN = path.resolve(import.meta.dirname, '../../dist/local/main.js')
const FREE = { LOCAL_IOT_PORT: '0', LOCAL_MQTT_PORT: '0', LOCAL_DYNAMODB_PORT: '0', CVM_LOCAL_DIR: '' }

await t.test('the store is there at once', async t => {
  const { local, close } = await startRig({}, { dynamodb: true })
  t.teardown(close)
  const db = new DynamoDBClient({ endpoint: local.dynamodbUrl, region: 'us-east-1', credentials: { accessKeyId: 'any', secretAccessKey: 'key' } })
  t.teardown(() => { db.destroy() })
  await db.send(new CreateTableCommand({
    TableName: 'devices',
    BillingMode: 'PAY_PER_REQUEST',
    KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }],
    AttributeDefinitions: [{ AttributeName: 'id', AttributeType: 'S' }]
  }))
  t.match((await db.send(new DescribeTableCommand({ TableName: 'devices' }))).Table, { TableStatus: 'ACTIVE' })
})

await t.test('the device policy is made under the name given', async t => {
  const { iot, close } = await startRig({ policyName: 'mine', region: 'eu-central-1' })
  t.teardown(close)
  const { policyDocument } = await iot.send(new GetPolicyCommand({ policyName: 'mine' }))
  t.match(policyDocument, 'arn:aws:iot:eu-central-1:000000000000:client/${iot:Connection.Thing.ThingName}') // eslint-disable-line no-template-curly-in-string
})

await t.test('servers show a certificate of the root for every name', async t => {
  const { local, close } = await startRig({ serverNames: ['aws.internal', '10.1.2.3', 'localhost'] })
  t.teardown(close)
  const { port } = new URL(local.mqttUrl)
  for (const servername of ['localhost', 'aws.internal']) {
    const socket = connectTls({ port: Number(port), ca: local.rootCaPem, servername })
    await once(socket, 'secureConnect')
    t.ok(socket.authorized, servername)
    socket.destroy()
  }
  const text = openssl(['x509', '-noout', '-text'], { input: local.serverTls.cert })
  t.match(text, /DNS:localhost, IP Address:127\.0\.0\.1, IP Address:0:0:0:0:0:0:0:1, DNS:aws\.internal, IP Address:10\.1\.2\.3\n/)
  t.match(text, /TLS Web Server Authentication\n/)
  const dir = t.testdir({ 'root.pem': local.rootCaPem, 'server.pem': local.serverTls.cert })
  t.match(openssl(['verify', '-x509_strict', '-purpose', 'sslserver', '-CAfile', 'root.pem', 'server.pem'], { cwd: dir }), /OK/)
})

await t.test('the CA is kept in the folder, and only there', async t => {
  const dir = path.join(t.testdir({}), 'state')
  const root = async (): Promise<string> => {
    const { local, close } = await startRig({ dir })
    await close()
    return local.rootCaPem
  }
  const first = await root()
  t.equal(await root(), first, 'used again')
  t.equal(readFileSync(path.join(dir, 'root-ca.pem'), 'utf8'), first)
  const mode = (file: string): number => statSync(path.join(dir, file)).mode & 0o777
  t.same(['', 'root-ca.pem', 'root-ca.key'].map(mode), [0o700, 0o600, 0o600])
  rmSync(path.join(dir, 'root-ca.pem'))
  const second = await root()
  t.not(second, first, 'made anew when one file is missing')
  writeFileSync(path.join(dir, 'root-ca.pem'), first)
  t.notOk([first, second].includes(await root()), 'made anew when key and certificate do not belong together')
  writeFileSync(path.join(dir, 'root-ca.key'), 'rubbish')
  await t.rejects(root(), { message: /cannot be used; remove .*root-ca\.pem and .*root-ca\.key/ })
})

await t.test('a taken port is named, with the setting that changes it, and nothing is left running', async t => {
  const blocker = createServer().listen(0, '127.0.0.1')
  await once(blocker, 'listening')
  t.teardown(() => { blocker.close() })
  const { port } = blocker.address() as { port: number }
  const cases = [['iotPort', 'LOCAL_IOT_PORT'], ['mqttPort', 'LOCAL_MQTT_PORT'], ['dynamodbPort', 'LOCAL_DYNAMODB_PORT']] as const
  for (const [member, setting] of cases) {
    await t.rejects(startRig({ [member]: port }, { dynamodb: true }), { name: 'PortUnavailableError', setting, message: `127.0.0.1:${port} is taken; set ${setting} to another port, 0 for any free one` })
  }
})

await t.test('close ends open connections and frees the ports', async t => {
  const { local, iot, close } = await startRig()
  await iot.send(new GetPolicyCommand({ policyName: 'device-policy' }))
  const half = connectTls({ port: Number(new URL(local.mqttUrl).port), ca: local.rootCaPem, servername: 'localhost' })
  half.on('error', () => {})
  await once(half, 'connect')
  const cut = new Promise(resolve => half.once('close', resolve))
  await close()
  await cut
  await t.rejects(connect(local, { clientId: 'x' }))
  await t.rejects(sdkClient(local.iotUrl).send(new GetPolicyCommand({ policyName: 'device-policy' })), { code: 'ECONNREFUSED' })
})

await t.test('as a process', async t => {
  const run = (env: NodeJS.ProcessEnv) => spawn(process.execPath, [MAIN], {
    env: { PATH: process.env['PATH'], ...FREE, ...env }, stdio: ['ignore', 'pipe', 'pipe']
  })
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const child = run({})
    const [addresses] = await once(child.stdout, 'data') as [Buffer]
    t.match(addresses.toString(), /^AWS IoT API {2}http:\/\/127\.0\.0\.1:\d+\nMQTT {9}mqtts:\/\/127\.0\.0\.1:\d+\nDynamoDB {5}http:\/\/127\.0\.0\.1:\d+\n$/)
    child.kill(signal)
    const [code] = await once(child, 'exit')
    t.equal(code, 0, signal)
  }
  const said = async (env: NodeJS.ProcessEnv): Promise<[number, string]> => {
    const child = run(env)
    let text = ''
    child.stderr.on('data', data => { text += String(data) })
    const [code] = await once(child, 'close') as [number]
    return [code, text]
  }
  t.match(await said({ NODE_ENV: 'production' }), [1, /does not start when NODE_ENV=production/])
  t.match(await said({ LOCAL_IOT_PORT: 'x', LOCAL_MQTT_PORT: '70000' }), [1, /LOCAL_IOT_PORT must be .*\nLOCAL_MQTT_PORT must be/])
  t.match(await said({ LOCAL_QUOTAS: '-1', LOCAL_FAULTS: '[{}]' }), [1, /LOCAL_QUOTAS must be .*\nLOCAL_FAULTS: "operation" must be/])
  t.match(await said({ LOCAL_FAULTS: '{' }), [1, /LOCAL_FAULTS: .*JSON/])
  const child = run({ LOCAL_DYNAMODB_PORT: 'off' })
  const [addresses] = await once(child.stdout, 'data') as [Buffer]
  t.match(addresses.toString(), /DynamoDB {5}off\n/)
  child.kill()
  await once(child, 'exit')
})
