import { once } from 'node:events'
import { connect as connectTls } from 'node:tls'
import * as aws from '@aws-sdk/client-iot'
import type { IClientOptions, MqttClient } from 'mqtt'
import t, { type Test } from 'tap'
import { CustomerCa, type Leaf } from './ca-rig.ts'
import { connect, opensslCsr, P256, startRig } from './rig.ts'

const { local, iot, close } = await startRig()
t.teardown(close)

const ALLOW_ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
await iot.send(new aws.CreatePolicyCommand({ policyName: 'all', policyDocument: ALLOW_ALL }))

type Event = [topic: string, content: Record<string, unknown>]

/** A client that hears the events of AWS itself. */
async function listener (t: Test, filter: string): Promise<{ next: () => Promise<Event>, heard: () => number }> {
  const { key, csr } = opensslCsr(P256, '/CN=listener')
  const made = await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr, setAsActive: true }))
  await iot.send(new aws.AttachPolicyCommand({ policyName: 'all', target: made.certificateArn }))
  const client = await connect(local, { clientId: `listener-${made.certificateId?.slice(0, 8)}`, key, cert: made.certificatePem ?? '' })
  t.teardown(() => { client.end(true) })
  const waiting: Array<(event: Event) => void> = []
  const events: Event[] = []
  client.on('message', (topic, payload) => {
    const event: Event = [topic, JSON.parse(payload.toString()) as Record<string, unknown>]
    const next = waiting.shift()
    if (next === undefined) events.push(event)
    else next(event)
  })
  await client.subscribeAsync(filter)
  return {
    next: () => new Promise(resolve => {
      const event = events.shift()
      if (event === undefined) waiting.push(resolve)
      else resolve(event)
    }),
    heard: () => events.length
  }
}

const attempt = (leaf: Leaf, options: IClientOptions = {}): Promise<MqttClient> =>
  connect(local, { clientId: 'dev', key: leaf.key, cert: leaf.chain, ...options })
const refused = async (t: Test, leaf: Leaf, options: IClientOptions = {}): Promise<void> => {
  await t.rejects(attempt(leaf, options), Error)
}
const find = async (certificateId: string) => (await iot.send(new aws.DescribeCertificateCommand({ certificateId }))).certificateDescription
const unknown = async (t: Test, { id }: Leaf): Promise<void> => { await t.rejects(find(id), { name: 'ResourceNotFoundException' }) }

await t.test('first connection registers, each one announces, activation lets in', async t => {
  const ca = new CustomerCa()
  const caCertificateId = await ca.register(iot)
  const { next } = await listener(t, '$aws/events/certificates/registered/#')
  for (const file of ['cert', 'chain'] as const) {
    const leaf = ca.sign(`/CN=dev-${file}`)
    const before = Date.now()
    for (let time = 1; time <= 3; time++) {
      await refused(t, leaf, { cert: leaf[file] })
      const [topic, event] = await next()
      t.equal(topic, `$aws/events/certificates/registered/${caCertificateId}`)
      const { timestamp, ...rest } = event
      t.same(rest, {
        certificateId: leaf.id, caCertificateId, certificateStatus: 'PENDING_ACTIVATION', awsAccountId: '000000000000', certificateRegistrationTimestamp: null
      })
      t.ok(Number(timestamp) >= before && Number(timestamp) <= Date.now(), 'milliseconds')
    }
    t.match(await find(leaf.id), { status: 'PENDING_ACTIVATION', caCertificateId, certificateMode: 'DEFAULT', certificatePem: leaf.cert })
    await iot.send(new aws.AttachPolicyCommand({ policyName: 'all', target: `arn:aws:iot:us-east-1:000000000000:cert/${leaf.id}` }))
    await iot.send(new aws.UpdateCertificateCommand({ certificateId: leaf.id, newStatus: 'ACTIVE' }))
    const client = await attempt(leaf)
    await client.publishAsync('any', 'x', { qos: 1 })
    await client.endAsync()
  }
})

await t.test('a TLS handshake alone does nothing', async t => {
  const ca = new CustomerCa('/CN=Idle CA')
  await ca.register(iot)
  const leaf = ca.sign('/CN=idle')
  const socket = connectTls({ port: Number(new URL(local.mqttUrl).port), ca: local.rootCaPem, servername: 'localhost', key: leaf.key, cert: leaf.cert })
  await once(socket, 'secureConnect')
  socket.end()
  await once(socket, 'close')
  await unknown(t, leaf)
})

await t.test('who is not registered', async t => {
  const ca = new CustomerCa('/CN=Strict CA')
  const caCertificateId = await ca.register(iot)
  const spoofed = new CustomerCa('/CN=Strict CA').sign('/CN=spoofed')
  const past = await ca.signDated('CN=late', new Date('2020-01-01'), new Date('2021-01-01'))
  const future = await ca.signDated('CN=early', new Date('2045-01-01'), new Date('2046-01-01'))
  for (const leaf of [spoofed, past, future, new CustomerCa('/CN=Nobody').sign('/CN=nobody')]) {
    await refused(t, leaf)
    await unknown(t, leaf)
  }
  const old = ca.sign('/CN=old')
  await refused(t, old)
  await iot.send(new aws.UpdateCertificateCommand({ certificateId: old.id, newStatus: 'ACTIVE' }))
  await iot.send(new aws.AttachPolicyCommand({ policyName: 'all', target: `arn:aws:iot:us-east-1:000000000000:cert/${old.id}` }))
  const changes: Array<Partial<aws.UpdateCACertificateCommandInput>> = [
    { newAutoRegistrationStatus: 'DISABLE' }, { newAutoRegistrationStatus: 'ENABLE', newStatus: 'INACTIVE' }
  ]
  for (const change of changes) {
    await iot.send(new aws.UpdateCACertificateCommand({ certificateId: caCertificateId, ...change }))
    const leaf = ca.sign('/CN=new')
    await refused(t, leaf)
    await unknown(t, leaf)
    await (await attempt(old)).endAsync()
  }
  await iot.send(new aws.UpdateCACertificateCommand({ certificateId: caCertificateId, newStatus: 'ACTIVE' }))
  const leaf = ca.sign('/CN=new')
  await refused(t, leaf)
  t.match(await find(leaf.id), { status: 'PENDING_ACTIVATION' })
  await iot.send(new aws.UpdateCertificateCommand({ certificateId: leaf.id, newStatus: 'REVOKED' }))
  await refused(t, leaf)
  t.match(await find(leaf.id), { status: 'REVOKED' }, 'what is REVOKED stays so')
})

await t.test('SNI_ONLY', async t => {
  const ca = new CustomerCa('/CN=Several accounts')
  await iot.send(new aws.RegisterCACertificateCommand({ caCertificate: ca.cert, certificateMode: 'SNI_ONLY', setAsActive: true, allowAutoRegistration: true }))
  const leaf = ca.sign('/CN=sni')
  const elsewhere = { servername: 'other.example', checkServerIdentity: () => undefined }
  await refused(t, leaf, elsewhere)
  await unknown(t, leaf)
  await refused(t, leaf)
  t.match(await find(leaf.id), { status: 'PENDING_ACTIVATION', certificateMode: 'SNI_ONLY' })
  await iot.send(new aws.AttachPolicyCommand({ policyName: 'all', target: `arn:aws:iot:us-east-1:000000000000:cert/${leaf.id}` }))
  await iot.send(new aws.UpdateCertificateCommand({ certificateId: leaf.id, newStatus: 'ACTIVE' }))
  await refused(t, leaf, elsewhere)
  await (await attempt(leaf)).endAsync()
})

await t.test('presence', async t => {
  const { next, heard } = await listener(t, '$aws/events/presence/+/here')
  const ca = new CustomerCa('/CN=Presence CA')
  await ca.register(iot)
  const leaf = ca.sign('/CN=here')
  await refused(t, leaf, { clientId: 'here' })
  const target = `arn:aws:iot:us-east-1:000000000000:cert/${leaf.id}`
  await iot.send(new aws.AttachPolicyCommand({ policyName: 'all', target }))
  await iot.send(new aws.UpdateCertificateCommand({ certificateId: leaf.id, newStatus: 'ACTIVE' }))
  t.equal(heard(), 0, 'a refused connection is none')

  const arrives = async (versionNumber: number): Promise<[MqttClient, unknown]> => {
    const client = await attempt(leaf, { clientId: 'here' })
    client.on('error', () => {})
    const [topic, event] = await next()
    t.equal(topic, '$aws/events/presence/connected/here')
    t.match(event, {
      clientId: 'here', eventType: 'connected', principalIdentifier: leaf.id, ipAddress: '127.0.0.1', versionNumber, timestamp: Number, sessionIdentifier: /^[\da-f-]{36}$/
    })
    return [client, event['sessionIdentifier']]
  }
  const leaves = async (sessionIdentifier: unknown, versionNumber: number, disconnectReason: string): Promise<void> => {
    const [topic, event] = await next()
    t.equal(topic, '$aws/events/presence/disconnected/here')
    t.match(event, {
      clientId: 'here', eventType: 'disconnected', principalIdentifier: leaf.id, versionNumber, sessionIdentifier, disconnectReason, clientInitiatedDisconnect: disconnectReason === 'CLIENT_INITIATED_DISCONNECT'
    })
  }
  const [first, firstSession] = await arrives(0)
  await first.endAsync()
  await leaves(firstSession, 0, 'CLIENT_INITIATED_DISCONNECT')

  const [, secondSession] = await arrives(1)
  const third = await attempt(leaf, { clientId: 'here' })
  third.on('error', () => {})
  await leaves(secondSession, 1, 'DUPLICATE_CLIENTID')
  const [, { sessionIdentifier: thirdSession }] = await next()
  third.publish('$aws/events/mine', 'x')
  await leaves(thirdSession, 2, 'AUTH_ERROR')

  const [fourth, fourthSession] = await arrives(3)
  fourth.stream.destroy()
  await leaves(fourthSession, 3, 'CONNECTION_LOST')

  const [, fifthSession] = await arrives(4)
  await iot.send(new aws.UpdateCertificateCommand({ certificateId: leaf.id, newStatus: 'INACTIVE' }))
  await leaves(fifthSession, 4, 'AUTH_ERROR')
})

await t.test('wildcards of a first level do not reach reserved topics', async t => {
  const all = await listener(t, '#')
  const events = await listener(t, '$aws/events/#')
  await listener(t, 'any')
  t.match((await events.next())[0], '$aws/events/presence/')
  t.equal(all.heard(), 0)
})
