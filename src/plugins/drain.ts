import type { IncomingMessage, ServerResponse } from 'node:http'
import { Server, type Socket } from 'node:net'
import fp from 'fastify-plugin'

/**
 * A connection without a request is kept for a second while draining: a request may be on its way on it, and cutting would lose it. Turns
 * of the event loop are counted, because a process that had no CPU for a second has not looked for requests in it.
 */
const SWEEP_MS = 50
const LINGER_SWEEPS = 20

/**
 * Graceful close. Fastify's own cuts the connections that are idle at that moment, whatever is on its way on them, and waits over a
 * minute for those that are answering, because they keep alive. Here only the listener is closed; answers say `connection: close`;
 * after a while connections without a request are cut, also those that never sent one or never finished their TLS handshake.
 */
export const drain = fp(async app => {
  const stopping = new AbortController()
  const sockets = new Set<Socket>()
  const busy = new Map<string, number>()
  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    const peer = peerOf(socket)
    socket.once('close', () => {
      sockets.delete(socket)
      // A pipelined request whose turn never came does not close on Node 20.
      busy.delete(peer)
    })
  })
  app.server.on('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    const peer = peerOf(socket)
    busy.set(peer, (busy.get(peer) ?? 0) + 1)
    response.once('close', () => {
      const left = (busy.get(peer) ?? 1) - 1
      if (left > 0) busy.set(peer, left)
      else busy.delete(peer)
    })
  })
  app.addHook('onSend', async (_request, reply) => {
    if (stopping.signal.aborted) reply.header('connection', 'close')
  })
  app.decorate('isDraining', () => stopping.signal.aborted)
  app.decorate('stopping', { getter: () => stopping.signal })
  app.decorate('drain', async (delayMs: number, timeoutMs: number) => {
    stopping.abort()
    if (delayMs > 0) await new Promise(resolve => setTimeout(resolve, delayMs))
    const cut = (which: (socket: Socket) => boolean): void => { for (const socket of sockets) if (which(socket)) socket.destroy() }
    let sweeps = 0
    const sweep = setInterval(() => { if (++sweeps > LINGER_SWEEPS) cut(socket => !busy.has(peerOf(socket))) }, SWEEP_MS)
    const force = setTimeout(() => cut(() => true), timeoutMs)
    // Not the HTTP server's own close, which cuts at once.
    await new Promise(resolve => Server.prototype.close.call(app.server, resolve))
    clearInterval(sweep)
    clearTimeout(force)
    await app.close()
  })
}, { name: 'drain' })

/** The same for a connection and for the TLS connection on top of it. */
function peerOf ({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`
}

declare module 'fastify' {
  interface FastifyInstance {
    isDraining: () => boolean
    /** Aborted once it drains. */
    stopping: AbortSignal
    /** Stops accepting after `delayMs`, lets requests in flight finish, and cuts what is left after `timeoutMs`. */
    drain: (delayMs: number, timeoutMs: number) => Promise<void>
  }
}
