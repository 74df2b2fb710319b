import { type RequestListener, type Server, createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { BlockList, type Socket, isIPv6 } from 'node:net'
import type { FastifyBaseLogger } from 'fastify'
import { oneAtATime } from './one-at-a-time.ts'

interface HttpServerOptions {
  tls: { cert: string, key: string } | undefined
  /** Most connections at once. */
  maxConnections: number
  /** Networks whose connections are many clients'. */
  proxies: readonly string[]
  log: FastifyBaseLogger
}

/** Of all connections, what one address may hold: four of them can fill the service, and not one. */
const SHARE_OF_ADDRESS = 1 / 4

/** Enough for the slowest device on the slowest link; Node's own is two minutes. */
const HANDSHAKE_MS = 10_000

/**
 * An HTTP server whose connections are bounded in number, in time and for each address, and begin one request at a time. Node looks for
 * overdue requests every half minute and answers a missing `Host` without a word unless told otherwise.
 */
export function httpServer ({ tls, maxConnections, proxies, log }: HttpServerOptions, handle: RequestListener): Server {
  const times = { headersTimeout: 10_000, requestTimeout: 15_000, keepAliveTimeout: 72_000, connectionsCheckingInterval: 1_000 }
  const limits = { ...times, maxHeaderSize: 16_384, requireHostHeader: false }
  const listener = oneAtATime(handle)
  // Any client certificate is taken: it only shows which key the client has.
  const server = tls
    ? createTlsServer({ ...tls, ...limits, minVersion: 'TLSv1.2', requestCert: true, rejectUnauthorized: false, handshakeTimeout: HANDSHAKE_MS }, listener)
    : createServer(limits, listener)
  server.maxConnections = maxConnections
  boundAddresses(server, Math.ceil(maxConnections * SHARE_OF_ADDRESS), proxies)
  // A connection that cannot be accepted, such as for want of file descriptors, must not end the process.
  server.on('listening', () => server.on('error', (error: NodeJS.ErrnoException) => log.error({ code: error.code }, 'a connection could not be accepted')))
  return server
}

function boundAddresses (server: Server, most: number, proxies: readonly string[]): void {
  const shared = networksOf(proxies)
  const open = new Map<string, number>()
  server.on('connection', (socket: Socket) => {
    const { remoteAddress = '' } = socket
    const address = remoteAddress.replace(/^::ffff:(?=\d+\.)/, '')
    if (shared.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')) return
    const count = (open.get(address) ?? 0) + 1
    open.set(address, count)
    socket.once('close', () => {
      const left = (open.get(address) ?? 1) - 1
      if (left > 0) open.set(address, left)
      else open.delete(address)
    })
    if (count > most) socket.destroy()
  })
}

/** Networks in CIDR notation, or single addresses. */
export function networksOf (cidrs: readonly string[]): BlockList {
  const networks = new BlockList()
  for (const cidr of cidrs) {
    const [address = '', bits] = cidr.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    networks.addSubnet(address, Number(bits ?? (family === 'ipv6' ? 128 : 32)), family)
  }
  return networks
}

interface Limits { userLimits?: { open_files?: { soft?: number | string } } }

/** For calls to AWS and files, at the service's full capacity. */
const OTHER_FILES = 300
const MOST_CONNECTIONS = 20_000

/** How many connections this process has file descriptors for, beside those for AWS (`ulimit -n`). */
export function connectionsAllowed (report = process.report.getReport() as Limits): number {
  const soft = Number(report.userLimits?.open_files?.soft)
  if (!Number.isFinite(soft)) return MOST_CONNECTIONS
  return Math.max(1, Math.min(MOST_CONNECTIONS, Math.floor(Math.max(soft / 2, soft - OTHER_FILES))))
}
