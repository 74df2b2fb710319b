// What stands between a service and AWS: passes every call on, and lets a test decide what becomes of the call and of its answer.
import { Agent, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'

/** One call of a service to AWS. */
export interface AwsCall {
  /** AWS's name of it, such as `UpdateItem` or `AttachPolicy`. */
  readonly operation: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingHttpHeaders
  /** The JSON body; empty when there is none. */
  readonly body: Readonly<Record<string, unknown>>
  /** Who calls: the name that the proxy was started for. */
  readonly from: string
}

export interface AwsAnswer { readonly status: number, readonly body: Readonly<Record<string, unknown>> }

/**
 * `cut` ends the connection, `half` in the middle of the answer; `lose` leaves the caller waiting for ever; `twice` has AWS carry a call
 * out twice, and passes the second answer. With `waitMs` a call or an answer is held for so long and then passes, whether the caller still
 * waits or not.
 */
export type Fate = 'pass' | 'cut' | 'half' | 'lose' | 'twice' | { readonly waitMs: number }

/** Asked about every call before AWS gets it, and about every answer before the caller gets it. */
export interface Decider {
  readonly before: (call: AwsCall) => Fate
  readonly after: (call: AwsCall, answer: AwsAnswer) => Fate
}

/** Starts a proxy on a free port, to be gone at the end of the test; resolves with its URL. */
export async function startAwsProxy (t: Test, target: string, from: string, decider: Decider): Promise<string> {
  const agent = new Agent({ keepAlive: true })
  const handle = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const content = await buffer(incoming)
    const call = callOf(incoming, content, from)
    const before = decider.before(call)
    if (await met(before, outgoing)) return
    const ask = async () => {
      const answer = await forward(agent, target, incoming, content)
      return { answer, after: decider.after(call, { status: answer.status, body: parsed(answer.body) }) }
    }
    if (before === 'twice') await ask()
    const { answer: { status, headers, body }, after } = await ask()
    if (await met(after, outgoing)) return
    outgoing.writeHead(status, headers)
    if (after === 'half') outgoing.write(body.subarray(0, body.length / 2), () => outgoing.destroy())
    else outgoing.end(body)
  }
  const server = createServer((incoming, outgoing) => { handle(incoming, outgoing).catch(() => outgoing.destroy()) })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => new Promise<void>(resolve => {
    server.close(() => resolve())
    server.closeAllConnections()
    agent.destroy()
  }))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Holds what is to wait, and ends what is not to go on; whether it was ended. */
async function met (fate: Fate, outgoing: ServerResponse): Promise<boolean> {
  if (typeof fate === 'object') await delay(fate.waitMs)
  if (fate === 'cut') outgoing.destroy()
  return fate === 'cut' || fate === 'lose'
}

/** To its end, also when the caller has died: AWS does not know. */
function forward (agent: Agent, target: string, { method, url, headers }: IncomingMessage, content: Buffer) {
  return new Promise<{ status: number, headers: IncomingHttpHeaders, body: Buffer }>((resolve, reject) => {
    const { connection, ...passed } = headers
    const call = request(new URL(url ?? '/', target), { method, headers: passed, agent }, answer => {
      buffer(answer).then(body => {
        const { connection, 'transfer-encoding': encoding, ...headers } = answer.headers
        resolve({ status: answer.statusCode ?? 502, headers: { ...headers, 'content-length': String(body.length) }, body })
      }, reject)
    })
    call.on('error', reject).end(content)
  })
}

const IOT: ReadonlyArray<readonly [RegExp, string]> = [
  [/^POST \/certificates$/, 'CreateCertificateFromCsr'],
  [/^POST \/keys-and-certificate$/, 'CreateKeysAndCertificate'],
  [/^GET \/certificates$/, 'ListCertificates'],
  [/^GET \/certificates\/.+/, 'DescribeCertificate'],
  [/^PUT \/certificates\/.+/, 'UpdateCertificate'],
  [/^DELETE \/certificates\/.+/, 'DeleteCertificate'],
  [/^POST \/things\/[^/]+$/, 'CreateThing'],
  [/^PUT \/things\/[^/]+\/principals$/, 'AttachThingPrincipal'],
  [/^PUT \/target-policies\/.+/, 'AttachPolicy'],
  [/^GET \/endpoint$/, 'DescribeEndpoint']
]

function callOf ({ method, url, headers }: IncomingMessage, content: Buffer, from: string): AwsCall {
  const { pathname: path, searchParams: query } = new URL(url ?? '/', 'http://aws')
  const target = headers['x-amz-target']
  const operation = typeof target === 'string'
    ? target.split('.')[1] ?? target
    : IOT.find(([pattern]) => pattern.test(`${method} ${path}`))?.[1] ?? `${method} ${path}`
  return { operation, path, query, headers, body: parsed(content), from }
}

function parsed (content: Buffer): Record<string, unknown> {
  try {
    return JSON.parse(content.toString()) as Record<string, unknown>
  } catch {
    return {}
  }
}
