// How clients ask in a storm: again and again, each as long as an answer may still change.
import { setTimeout as delay } from 'node:timers/promises'
import type { Vended } from '../tools.ts'

export interface Reply {
  readonly status: number
  readonly code: string | undefined
  readonly reason: string | undefined
  readonly body: Partial<Vended> & { readonly registrationToken?: string, readonly state?: string, readonly certificateId?: string }
  readonly retryAfterMs: number | undefined
}

/** One request; status 0 where there was no whole answer. */
export async function askOnce (url: string, path: string, body?: object, key?: string): Promise<Reply> {
  try {
    const headers = { ...body && { 'content-type': 'application/json' }, ...key && { authorization: `Bearer ${key}` } }
    const answer = await fetch(url + path, { headers, signal: AbortSignal.timeout(30_000), ...body && { method: 'POST', body: JSON.stringify(body) } })
    const content = await answer.json() as Reply['body'] & { code?: string, reason?: string }
    const after = answer.headers.get('retry-after')
    const { code, reason } = content
    return { status: answer.status, code, reason, body: content, retryAfterMs: after === null ? undefined : Number(after) * 1000 }
  } catch {
    return { status: 0, code: undefined, reason: undefined, body: {}, retryAfterMs: undefined }
  }
}

/** Whether the same, with a new proof where it needs one, may be answered otherwise later. */
function isPassing ({ status, retryAfterMs, reason }: Reply): boolean {
  return status === 0 || status >= 500 || retryAfterMs !== undefined || reason === 'nonce-used'
}

/** Asks until an answer is final, or until the time is up; `onReply` sees each answer. */
export async function persist (ask: () => Promise<Reply>, withinMs: number, onReply: (reply: Reply) => void = () => {}): Promise<Reply> {
  const deadline = Date.now() + withinMs
  for (let tries = 0; ; tries++) {
    const reply = await ask()
    onReply(reply)
    if (!isPassing(reply) || Date.now() > deadline) return reply
    await delay(reply.retryAfterMs ?? Math.min(100 * 2 ** tries, 2_000))
  }
}
