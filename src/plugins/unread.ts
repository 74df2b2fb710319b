import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import fp from 'fastify-plugin'

/** For the whole answer, once it has been made, and more for a long one. */
const ANSWER_MS = 30_000
const BYTES_PER_MS = 16

/** What is still read, and how long it is waited, of a body that is not wanted: cut at once, the sender could miss the answer. */
const REST_BYTES = 1_048_576
const REST_MS = 2_000
const LOOK_MS = 10

/**
 * Ends connections whose client does not take its answer in time, and those that send on a body after its request was answered.
 */
export const unread = fp(async app => {
  app.addHook('onRequest', async ({ raw: { socket }, raw }, reply) => {
    reply.raw.once('finish', () => {
      // A request that was injected has no connection.
      if (raw.complete || socket.destroyed || !(socket instanceof Socket)) return
      const { bytesRead } = socket
      const end = () => {
        clearInterval(look)
        clearTimeout(cut)
      }
      const look = setInterval(() => {
        if (raw.complete || socket.destroyed) end()
        else if (socket.bytesRead - bytesRead > REST_BYTES) socket.pause()
      }, LOOK_MS)
      const cut = setTimeout(() => {
        end()
        if (!raw.complete) socket.destroy()
      }, REST_MS)
    })
  })
  app.addHook('onSend', async (_request, { raw }, payload: unknown) => {
    const within = (bytes: number) => {
      const timer = setTimeout(() => raw.destroy(), ANSWER_MS + bytes / BYTES_PER_MS).unref()
      raw.once('close', () => clearTimeout(timer))
    }
    if (isStream(payload)) payload.once('end', () => within(0))
    else within(typeof payload === 'string' || Buffer.isBuffer(payload) ? Buffer.byteLength(payload) : 0)
  })
}, { name: 'unread' })

/** Whether an answer is sent piece by piece. */
export function isStream (payload: unknown): payload is Readable {
  return typeof (payload as Partial<Readable> | undefined)?.pipe === 'function'
}
