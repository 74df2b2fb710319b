// A manufacturing line's client: streams lines out and results in, on Node's own HTTP; and what it can see of the calls to AWS.
import { once } from 'node:events'
import { request } from 'node:http'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'

export interface LineResult {
  readonly line: number
  readonly serialNumber: string
  readonly status: string
  readonly code?: string
  readonly certificateId?: string
  readonly certificatePem?: string
}

export type Summary = Readonly<Record<'lines' | 'vended' | 'replayed' | 'refused' | 'failed', number>> & { readonly summary: true }

/** Where a line posts, and as whom. */
export interface Line { readonly url: string, readonly key: string }

/**
 * Posts a batch and tells each result as it comes; resolves with the summary, or with nothing when the connection ends before that. The
 * bodies are sent as fast as they are taken. `cut` ends the connection from our side.
 */
export async function postBatch (
  { url, key }: Line, bodies: Iterable<string> | AsyncIterable<string>, onResult: (result: LineResult) => void = () => {}, cut?: AbortSignal
): Promise<Summary | undefined> {
  const headers = { 'content-type': 'application/x-ndjson', authorization: `Bearer ${key}` }
  const sending = request(`${url}/v1/batches`, { method: 'POST', headers, agent: false, ...cut && { signal: cut } })
  const answered = once(sending, 'response')
  Readable.from((async function * () { for await (const body of bodies) yield `${body}\n` })()).pipe(sending)
  sending.on('error', () => {})
  try {
    const [response] = await answered
    if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`)
    let summary: Summary | undefined
    response.on('error', () => {})
    for await (const text of createInterface({ input: response, crlfDelay: Infinity })) {
      const result = JSON.parse(text) as LineResult | Summary
      if ('summary' in result) summary = result
      else onResult(result)
    }
    return summary
  } catch (cause) {
    if (/^status/.test((cause as Error).message)) throw cause
    return undefined
  }
}

/** The calls to AWS IoT that a service has made, and those of them that were throttled. */
export async function iotCalls (opsUrl: string): Promise<{ all: number, throttled: number }> {
  const text = await (await fetch(`${opsUrl}/metrics`)).text()
  const calls = text.split('\n').filter(line => line.startsWith('cvm_aws_calls_total{') && line.includes('service="iot"'))
  const sum = (of: string[]) => of.reduce((total, line) => total + Number(line.split(' ').at(-1)), 0)
  return { all: sum(calls), throttled: sum(calls.filter(line => line.includes('Throttl'))) }
}
