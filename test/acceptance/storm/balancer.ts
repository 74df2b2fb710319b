// A load balancer in bad weather between clients and replicas: cuts, delays, repeats and answers late what a network may.
import { type ClientRequest, type IncomingMessage, type ServerResponse, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import type { Replica } from '../fleet.ts'
import type { Weather } from './weather.ts'

/** As a balancer's idle timeout: a replica that is paused for longer does not answer. */
const IDLE_MS = 6_000

/** Starts it on a free port; resolves with its URL. */
export async function startBalancer (t: Test, replicas: readonly Replica[], weather: Weather): Promise<string> {
  let turn = 0
  const next = () => {
    const inService = replicas.filter(replica => !weather.isStarting(replica))
    return inService[turn++ % inService.length]
  }
  const handle = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const body = await buffer(incoming)
    const send = (to?: ServerResponse) => forward(next(), incoming, body, weather, to)
    // An operator's wish takes effect each time that it arrives, and is sent again by its operator alone.
    const isWish = incoming.url?.startsWith('/v1/devices/')
    if (weather.happens('request cut', 200)) {
      outgoing.destroy()
      return
    }
    if (weather.happens('request delayed', 500)) await delay(weather.random(1_000, 'request delay'))
    if (!isWish && weather.happens('request late', 150)) {
      outgoing.destroy()
      await delay(weather.random(9_000, 'request late'))
      return send()
    }
    if (!isWish && weather.happens('request twice', 300)) send()
    send(outgoing)
  }
  const server = createServer((incoming, outgoing) => { handle(incoming, outgoing).catch(() => outgoing.destroy()) })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => new Promise<void>(resolve => {
    server.close(() => resolve())
    server.closeAllConnections()
  }))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Sends a request on; the answer streams to the client, if there is one that waits for it. */
function forward (
  replica: Replica | undefined, { method, url, headers }: IncomingMessage, body: Buffer, weather: Weather, to: ServerResponse | undefined
): void {
  const refuse = (status: number) => {
    if (to?.headersSent) to.destroy()
    else to?.writeHead(status, { 'content-type': 'text/plain' }).end()
  }
  if (!replica) return refuse(503)
  const isLost = weather.happens('answer lost', 200)
  const sending: ClientRequest = request(new URL(url ?? '/', replica.url()), { method, headers, agent: false, timeout: IDLE_MS }, answer => {
    answer.on('error', () => to?.destroy())
    if (isLost || !to) {
      to?.destroy()
      answer.resume()
      return
    }
    to.writeHead(answer.statusCode ?? 502, answer.headers)
    if (weather.happens('answer cut in half', 150)) {
      answer.once('data', (chunk: Buffer) => to.write(chunk.subarray(0, chunk.length / 2), () => to.destroy()))
      answer.resume()
    } else answer.pipe(to)
  })
  sending.on('timeout', () => {
    weather.count('balancer timeout')
    refuse(504)
    sending.destroy()
  })
  sending.on('error', () => refuse(502)).end(body)
  // Some balancers end a request whose client is gone, some do not.
  if (weather.random(2, 'balancer ends') === 0) to?.once('close', () => sending.destroy())
}
