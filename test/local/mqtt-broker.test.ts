import { once } from 'node:events'
import { connect as connectTls } from 'node:tls'
import * as aws from '@aws-sdk/client-iot'
import type { IClientOptions, MqttClient } from 'mqtt'
import t from 'tap'
import { connect, opensslCsr, P256, startRig } from './rig.ts'

const { local, iot, close } = await startRig()
t.teardown(close)

interface Device { key: string, cert: string, certificateId: string, certificateArn: string }

/** A device as the vending machine leaves it; `bind` and `active` to leave steps out. */
async function device (thingName: string, { active = true, policy = 'device-policy', thing = true } = {}): Promise<Device> {
  const { key, csr } = opensslCsr(P256, `/CN=${thingName}`)
  const made = await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr, setAsActive: active }))
  const [certificateId, certificateArn, cert] = [made.certificateId ?? '', made.certificateArn ?? '', made.certificatePem ?? '']
  await iot.send(new aws.CreateThingCommand({ thingName }))
  if (policy !== '') await iot.send(new aws.AttachPolicyCommand({ policyName: policy, target: certificateArn }))
  if (thing) await iot.send(new aws.AttachThingPrincipalCommand({ thingName, principal: certificateArn }))
  return { key, cert, certificateId, certificateArn }
}

const connected = async (clientId: string, { key, cert }: Pick<Device, 'key' | 'cert'>, options: IClientOptions = {}): Promise<MqttClient> => {
  const client = await connect(local, { clientId, key, cert, ...options })
  client.on('error', () => {})
  t.teardown(() => { client.end(true) })
  return client
}
const closing = (client: MqttClient): Promise<void> => new Promise(resolve => { client.once('close', resolve) })
const hearing = (client: MqttClient): Promise<string[]> =>
  new Promise(resolve => { client.once('message', (topic, payload) => { resolve([topic, payload.toString()]) }) })
const set = async (certificateId: string, newStatus: aws.CertificateStatus) =>
  await iot.send(new aws.UpdateCertificateCommand({ certificateId, newStatus }))

await t.test('an ACTIVE, bound certificate connects, subscribes, publishes and receives', async t => {
  for (const [thingName, options] of [['good', {}], ['good', { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' }]] as Array<[string, object]>) {
    const client = await connected(thingName, await device(thingName), options)
    t.same((await client.subscribeAsync('devices/good/#', { qos: 1 })).map(({ qos }) => qos), [1])
    const message = hearing(client)
    await client.publishAsync('devices/good/up', 'hello', { qos: 1 })
    t.same(await message, ['devices/good/up', 'hello'])
    await client.endAsync()
  }
})

await t.test('who is refused', async t => {
  const { key, foreign } = opensslCsr(P256)
  const revoked = await device('revoked')
  await set(revoked.certificateId, 'REVOKED')
  const deleted = await device('deleted', { active: false, policy: '', thing: false })
  await iot.send(new aws.DeleteCertificateCommand({ certificateId: deleted.certificateId }))
  const cases: Array<[string, string, IClientOptions]> = [
    ['no certificate', 'good', {}],
    ['a foreign certificate', 'good', { key, cert: foreign }],
    ['INACTIVE', 'inactive', await device('inactive', { active: false })],
    ['REVOKED', 'revoked', revoked],
    ['deleted', 'deleted', deleted],
    ['without policy', 'bare', await device('bare', { policy: '' })],
    ['without thing', 'loose', await device('loose', { thing: false })],
    ['another client id', 'other', await device('named')],
    ['an attached thing of another\'s name', 'good', await device('not-good')],
    ['no client id', '', await device('anonymous')],
    ['MQTT 5, which the local broker does not speak', 'five', { ...await device('five'), protocolVersion: 5 }]
  ]
  for (const [name, clientId, options] of cases) await t.rejects(connect(local, { clientId, ...options }), Error, name)
})

await t.test('a certificate without its key does not pass the handshake', async t => {
  const { cert } = await device('stolen')
  t.throws(() => connectTls({ cert, key: opensslCsr(P256).key }), /key values mismatch/)
})

await t.test('TLS below 1.2 is refused', async t => {
  const socket = connectTls({ port: Number(new URL(local.mqttUrl).port), minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' })
  const [error] = await once(socket, 'error') as [NodeJS.ErrnoException]
  t.match(error.code, /PROTOCOL_VERSION/)
})

await t.test('a forbidden publish closes the connection', async t => {
  const credentials = await device('pub')
  const cases: Array<[string, string, object, string?]> = [
    ['another device\'s topic', 'devices/other/up', { qos: 1 }],
    ['QoS 0', 'devices/other/up', { qos: 0 }],
    ['QoS 2', 'devices/pub/up', { qos: 2 }],
    ['retained without iot:RetainPublish', 'devices/pub/up', { qos: 0, retain: true }],
    ['more than eight levels', 'devices/pub/1/2/3/4/5/6/7', { qos: 0 }],
    ['a payload above 128 KB', 'devices/pub/up', { qos: 0 }, 'x'.repeat(128 * 1024 + 1)],
    ['the broker\'s own topics', '$SYS/x', { qos: 0 }]
  ]
  for (const [name, topic, options, payload = 'x'] of cases) {
    const client = await connected('pub', credentials)
    const closed = closing(client)
    client.publish(topic, payload, options, () => {})
    await closed
    t.pass(name)
  }
})

await t.test('no policy lets a device speak for AWS', async t => {
  await iot.send(new aws.CreatePolicyCommand({
    policyName: 'everything', policyDocument: '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
  }))
  const client = await connected('any', await device('any', { policy: 'everything', thing: false }))
  await client.publishAsync('kept', 'x', { qos: 1, retain: true })
  const closed = closing(client)
  client.publish('$aws/events/certificates/registered/x', 'x')
  await t.resolves(closed)
})

await t.test('a forbidden subscription fails alone', async t => {
  const client = await connected('sub', await device('sub'))
  const filters = ['devices/sub/#', 'devices/other/#', '#', '$SYS/#', '$aws/things/sub/shadow/#']
  const granted: number[] = []
  for (const filter of filters) granted.push(...(await client.subscribeAsync(filter).then(list => list.map(({ qos }) => qos), () => [128])))
  t.same(granted, [0, 128, 128, 128, 0])
  const closed = closing(client)
  client.subscribe('devices/sub/two', { qos: 2 }, () => {})
  await closed
})

await t.test('delivery needs iot:Receive', async t => {
  await iot.send(new aws.CreatePolicyCommand({
    policyName: 'half-deaf',
    policyDocument: JSON.stringify({
      Version: '2012-10-17',
      Statement: [
        { Effect: 'Allow', Action: ['iot:Connect', 'iot:Publish', 'iot:Subscribe'], Resource: '*' },
        { Effect: 'Allow', Action: 'iot:Receive', Resource: 'arn:aws:iot:us-east-1:000000000000:topic/loud' }
      ]
    })
  }))
  const client = await connected('deaf', await device('deaf', { policy: 'half-deaf' }))
  await client.subscribeAsync('+')
  const heard: string[] = []
  client.on('message', topic => { heard.push(topic) })
  const message = hearing(client)
  await client.publishAsync('quiet', 'x', { qos: 1 })
  await client.publishAsync('loud', 'x', { qos: 1 })
  await message
  t.same(heard, ['loud'], 'what was published first never came')
})

await t.test('a session ends when its certificate leaves ACTIVE, and only then', async t => {
  for (const status of ['INACTIVE', 'REVOKED'] as const) {
    const credentials = await device(`ends-${status}`)
    const bystander = await device(`stays-${status}`)
    const [client, other] = [await connected(`ends-${status}`, credentials), await connected(`stays-${status}`, bystander)]
    const closed = closing(client)
    await set(credentials.certificateId, 'ACTIVE')
    await client.publishAsync(`devices/ends-${status}/up`, 'x', { qos: 1 })
    await set(credentials.certificateId, status)
    await closed
    await t.rejects(connect(local, { clientId: `ends-${status}`, ...credentials }), Error, `refused when ${status}`)
    await other.publishAsync(`devices/stays-${status}/up`, 'x', { qos: 1 })
  }
  const back = await device('back', { active: false })
  await t.rejects(connect(local, { clientId: 'back', ...back }))
  await set(back.certificateId, 'ACTIVE')
  await connected('back', back)
})

await t.test('one connection per client id', async t => {
  const credentials = await device('twin')
  const first = await connected('twin', credentials)
  const closed = closing(first)
  const second = await connected('twin', credentials)
  await t.resolves(closed)
  await second.publishAsync('devices/twin/up', 'x', { qos: 1 })
})

await t.test('a policy taken away counts from the next packet', async t => {
  const credentials = await device('stripped')
  const client = await connected('stripped', credentials)
  const closed = closing(client)
  await iot.send(new aws.DetachPolicyCommand({ policyName: 'device-policy', target: credentials.certificateArn }))
  client.publish('devices/stripped/up', 'x')
  await t.resolves(closed)
})
