import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

export interface Received { path: string, headers: IncomingHttpHeaders, body: string }
/** The answer to the nth delivery. */
export type Behaviour = (response: ServerResponse, n: number) => void
interface Endpoint {
  url: string
  challenge: () => Promise<Received>
  deliveries: Received[]
  delivered: (count: number) => Promise<void>
  behave: (behaviour: Behaviour) => void
}

export const ok: Behaviour = response => { response.end() }

/** An endpoint that rules send to and that answers challenges with 200. */
export async function endpoint (t: Test): Promise<Endpoint> {
  const challenges: Received[] = []
  const deliveries: Received[] = []
  let behaviour = ok
  let arrived = (): void => {}
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', chunk => { body += String(chunk) })
    request.on('end', () => {
      const received = { path: request.url ?? '', headers: request.headers, body }
      if (request.headers['x-amz-rules-engine-message-type'] === undefined) {
        deliveries.push(received)
        behaviour(response, deliveries.length)
      } else {
        challenges.push(received)
        response.end()
      }
      arrived()
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.close(); server.closeAllConnections() })
  const until = async (reached: () => boolean): Promise<void> => {
    while (!reached()) await new Promise<void>(resolve => { arrived = resolve })
  }
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    challenge: async () => {
      await until(() => challenges.length > 0)
      return challenges.shift() ?? { path: '', headers: {}, body: '' }
    },
    deliveries,
    delivered: async count => { await until(() => deliveries.length >= count) },
    behave: next => { behaviour = next }
  }
}
