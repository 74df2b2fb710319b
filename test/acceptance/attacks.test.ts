// One caller's doing costs that caller alone: beside each attack good devices are served, and afterwards the service is as it was.
import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { type TLSSocket, connect } from 'node:tls'
import t, { type Test } from 'tap'
import { isWhole } from '../fixtures/proof-size.ts'
import { until } from '../fixtures/until.ts'
import { wholeOnly } from '../fixtures/whole-only.ts'
import { type ServiceProcess, startService } from './service-process.ts'

t.setTimeout(900_000)

/** Devices without a key of their own, so that their requests cost nothing to make. */
const GOOD = isWhole ? 20 : 6
const DEADLINE_MS = 60_000

type Sender = (address: string, bytes: string) => TLSSocket

/** Connections from other addresses of this machine, which all end with the test. */
function attacker (t: Test, { serviceUrl, rootCa }: ServiceProcess): Sender {
  const ca = readFileSync(rootCa)
  const sockets: TLSSocket[] = []
  t.teardown(() => { for (const socket of sockets) socket.destroy() })
  return (localAddress, bytes) => {
    // Passed on to net.connect, though missing in its types.
    const from = { localAddress } as object
    const socket = connect({ host: '127.0.0.1', servername: 'localhost', port: Number(new URL(serviceUrl).port), ca, ...from })
    sockets.push(socket)
    socket.on('error', () => {})
    if (bytes !== '') socket.write(bytes)
    return socket
  }
}

/** The share of good devices that get their keys within their deadline, sent as `cvm` does: 429 and 503 are asked again. */
async function served (service: ServiceProcess, send: Sender): Promise<number> {
  const devices = await Promise.all(Array.from({ length: GOOD }, () => service.register()))
  const outcomes = await Promise.all(devices.map(async device => {
    const body = JSON.stringify(device)
    for (const end = Date.now() + DEADLINE_MS; Date.now() < end;) {
      const socket = send('127.0.0.1', `POST /v1/keys-and-certificates HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
      let text = ''
      socket.on('data', chunk => { text += String(chunk) })
      await once(socket, 'close')
      if (text.startsWith('HTTP/1.1 201 ')) return true
      if (!/^HTTP\/1\.1 (429|503) /.test(text)) return false
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    return false
  }))
  return outcomes.filter(Boolean).length / outcomes.length
}

async function inFlight ({ opsUrl }: ServiceProcess): Promise<number> {
  const text = await fetch(`${opsUrl}/metrics`).then(response => response.text())
  return Number(/^cvm_http_requests_in_flight (\d+)$/m.exec(text)?.[1])
}

const readiness = async ({ opsUrl }: ServiceProcess) => (await fetch(`${opsUrl}/readyz`)).status
const descriptors = ({ pid }: ServiceProcess) => process.platform === 'linux' ? readdirSync(`/proc/${pid}/fd`).length : 0

/** Holds an attack while good devices vend, then ends it. */
async function withstands (t: Test, service: ServiceProcess, attack: (send: Sender) => Promise<TLSSocket[]>): Promise<void> {
  const send = attacker(t, service)
  t.equal(await served(service, send), 1, 'served before it')
  const before = descriptors(service)
  const hostile = await attack(send)
  t.ok(await served(service, send) >= 0.99, 'good devices are served beside it')
  t.equal(await readiness(service), 200, 'ready beside it')
  t.ok(await inFlight(service) <= 16, 'what it sends is not in flight')
  for (const socket of hostile) socket.destroy()
  t.ok(await until(async () => await inFlight(service) === 0), 'nothing in flight afterwards')
  // Connections to the stand-ins of AWS are kept.
  t.ok(await until(() => descriptors(service) <= before + 50), 'its descriptors are back')
}

const get = 'GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n'
const halfSent = 'POST /v1/certificates HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{'

const service = await startService(t, { name: 'dynalite' }, { RATE_LIMIT_ADDRESS_MAX: '600' })

await t.test('pipelined requests whose answers are not read', async t => {
  await withstands(t, service, async send => {
    const sockets = Array.from({ length: isWhole ? 20 : 2 }, (_, n) => send(`127.0.1.${n + 1}`, get.repeat(590)).pause())
    await Promise.all(sockets.map(async socket => await once(socket, 'secureConnect')))
    return sockets
  })
})

await t.test('half-sent requests of many addresses', async t => {
  await withstands(t, service, async send => {
    const [addresses, each] = isWhole ? [8, 75] : [4, 10]
    const sockets = Array.from({ length: addresses * each }, (_, n) => send(`127.0.2.${n % addresses + 1}`, halfSent))
    await Promise.all(sockets.map(async socket => await once(socket, 'secureConnect')))
    return sockets
  })
})

await t.test('a body that is sent on after its refusal is not read on', async t => {
  const send = attacker(t, service)
  const socket = send('127.0.3.1', 'POST /v1/batches HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n')
  let answer = ''
  let sent = 0
  const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
  socket.on('data', data => { answer += String(data) })
  const more = () => {
    while (!socket.destroyed && sent < 200_000_000) {
      sent += chunk.length
      if (!socket.write(chunk)) return
    }
  }
  socket.on('drain', more)
  await once(socket, 'secureConnect')
  more()
  // The reset is what is wanted.
  await new Promise(resolve => socket.once('close', resolve))
  t.match(answer, /^HTTP\/1\.1 401 /, 'it is answered')
  t.ok(sent < 200_000_000, 'and cut off', { sent })
})

await t.test('handshakes that never end are closed', { skip: wholeOnly }, async t => {
  const { port } = new URL(service.serviceUrl)
  const before = descriptors(service)
  const sockets = Array.from({ length: 200 }, (_, n) => connectTcp({ host: '127.0.0.1', port: Number(port), localAddress: `127.0.4.${n % 8 + 1}`, allowHalfOpen: true }))
  for (const socket of sockets) socket.on('error', () => {}).write(Buffer.from('1603010200010001fc0303', 'hex'))
  t.ok(await until(() => descriptors(service) >= before + 200), 'all are open')
  t.ok(await until(() => descriptors(service) <= before + 5, 60_000), 'none is left')
  for (const socket of sockets) socket.destroy()
})
