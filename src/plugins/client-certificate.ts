import { X509Certificate, createHash } from 'node:crypto'
import type { BlockList } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { CvmError } from '../errors.ts'
import { networksOf } from './http-server.ts'

interface ClientCertificateOptions {
  /** Where client certificates come from: the TLS connection to this process, or the header of a balancer that ended TLS. */
  from: 'socket' | 'balancer'
  /** Networks of the balancer: only its own connections may carry the header. */
  proxies: readonly string[]
}

/** What an Application Load Balancer in mTLS passthrough mode sends: the client's chain as URL-encoded PEM, the leaf first. */
const HEADER = 'x-amzn-mtls-clientcert'

const LEAF = /^-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/

/**
 * Client certificates (RFC 8446 section 4.4.2) from one place only, so that none can be claimed in the other: with `socket` the header is
 * as good as absent whoever sends it; with `balancer` it counts only on connections from the balancer's networks.
 */
export const clientCertificate = fp<ClientCertificateOptions>(async (app, { from, proxies }) => {
  const trusted = networksOf(proxies)
  app.decorateRequest('clientCertificateId', function (this: FastifyRequest) {
    return from === 'socket' ? ofSocket(this) : ofBalancer(this, trusted)
  })
}, { name: 'client-certificate' })

function ofSocket ({ raw: { socket } }: FastifyRequest): string | undefined {
  const certificate = (socket as Partial<TLSSocket>).getPeerX509Certificate?.()
  return certificate && idOf(certificate)
}

function ofBalancer ({ raw: { socket, headersDistinct } }: FastifyRequest, trusted: BlockList): string | undefined {
  const [value, ...others] = headersDistinct[HEADER] ?? []
  const { remoteAddress: address = '', remoteFamily } = socket
  if (value === undefined || !isIn(trusted, address, remoteFamily)) return undefined
  try {
    // Never as a form: `+` stands for itself here. Of two values, which a proxy may join by a comma, one is a client's own.
    const [leaf] = others.length === 0 && !value.includes(',') ? LEAF.exec(decodeURIComponent(value)) ?? [] : []
    if (leaf) return idOf(new X509Certificate(leaf))
  } catch {
    // What the balancer could not write as a certificate, nobody has proven to hold.
  }
  throw new CvmError('client-certificate-required', { reason: 'header-malformed' })
}

/** An address of IPv4 that came by a socket of IPv6 is written as one of that. */
function isIn (networks: BlockList, address: string, family: string | undefined): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, '')
  return networks.check(plain, family === 'IPv6' && plain === address ? 'ipv6' : 'ipv4')
}

/** AWS IoT's name of a certificate: SHA-256 of the DER. */
function idOf (certificate: X509Certificate): string {
  return createHash('sha256').update(certificate.raw).digest('hex')
}

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * The id of the certificate whose key the client has proven to hold in its TLS handshake, if it sent one. Nobody has looked at who
     * signed it. Raises `CvmError('client-certificate-required')` where the balancer's header cannot be read.
     */
    clientCertificateId: () => string | undefined
  }
}
