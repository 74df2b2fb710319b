import type { Socket } from 'node:net'
import fp from 'fastify-plugin'

/**
 * Graceful close. Fastify's own closes the sockets that are idle at that moment; one that is answering then keeps alive for over
 * a minute. So answers say `connection: close` while draining, and sockets are looked at again until none is left. Those that never
 * finish their TLS handshake are unknown to the HTTP server, yet keep it open: hence a list of our own for the last resort.
 */
export const drain = fp(async app => {
  let draining = false
  const sockets = new Set<Socket>()
  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  app.addHook('onSend', async (_request, reply) => {
    if (draining) reply.header('connection', 'close')
  })
  app.decorate('isDraining', () => draining)
  app.decorate('drain', async (delayMs: number, timeoutMs: number) => {
    draining = true
    if (delayMs > 0) await new Promise(resolve => setTimeout(resolve, delayMs))
    const sweep = setInterval(() => app.server.closeIdleConnections(), 50)
    const force = setTimeout(() => { for (const socket of sockets) socket.destroy() }, timeoutMs)
    await app.close()
    clearInterval(sweep)
    clearTimeout(force)
  })
}, { name: 'drain' })

declare module 'fastify' {
  interface FastifyInstance {
    isDraining: () => boolean
    /** Stops accepting after `delayMs`, lets requests in flight finish, and cuts what is left after `timeoutMs`. */
    drain: (delayMs: number, timeoutMs: number) => Promise<void>
  }
}
