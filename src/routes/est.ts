import { createPrivateKey } from 'node:crypto'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { CvmError, ERRORS, type ErrorCode } from '../errors.ts'
import type { Device } from '../vending/device.ts'
import { SERIAL_NUMBER } from '../vending/names.ts'
import { type Products, commonNameRule } from '../vending/product.ts'
import type { RenewRequest, Renewed } from '../vending/renew.ts'
import type { VendRequest, Vended } from '../vending/vend-steps.ts'
import { checkCsr, commonNameOf } from '../x509/csr.ts'
import { csrAttributes } from '../x509/csr-attributes.ts'
import { readEstCsr } from '../x509/est-body.ts'
import { decodePem } from '../x509/pem.ts'
import { base64Lines, certsOnly } from '../x509/pkcs7.ts'

const CERTS_ONLY = 'application/pkcs7-mime; smime-type=certs-only'
const BOUNDARY = 'cvm-est-part'

/** Passing trouble: the same request again gets what was begun, which EST calls pending (RFC 7030 section 4.2.3). */
const PENDING: readonly ErrorCode[] = ['aws-iot-throttled', 'aws-iot-unavailable', 'vend-in-progress', 'deadline-exceeded']

export interface EstRoutesOptions {
  vend: (request: VendRequest & { address: string }) => Promise<Vended>
  renew: (request: RenewRequest & { address: string }) => Promise<Renewed>
  /** The device that has the certificate now; may lag behind. */
  findByCertificate: (certificateId: string) => Promise<Device | undefined>
  find: (serialNumber: string) => Promise<Device | undefined>
  products: Products
  /** What devices verify AWS IoT with, in PEM. */
  rootCaPem: string
}

/** By HTTP Basic, or by the certificate of their TLS connection. */
interface Enrollee { serialNumber?: string, registrationToken?: string, certificateId?: string }

type EstRequest = FastifyRequest<{ Params: { label?: string }, Body: string }>

/**
 * Enrollment over Secure Transport (RFC 7030, RFC 8951); a label is a product. Bodies are base64 with or without line ends, whatever
 * `Content-Transfer-Encoding` says; answers have a length, and headers in canonical case; failures are plain text.
 */
export async function estRoutes (base: FastifyInstance, options: EstRoutesOptions): Promise<void> {
  await base.register(async app => {
    app.decorateRequest('enrollee', null)
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', { parseAs: 'string' }, readBody)
    app.addHook('onRoute', route => {
      route.config = { ...route.config, canonicalHeaders: true, answerFailure }
      route.schema = { hide: true } as object
    })
    app.addHook('preHandler', async request => { productOfLabel(request as EstRequest) })
    for (const prefix of ['/.well-known/est', '/.well-known/est/:label']) await app.register(operations, { prefix })
  })

  async function operations (app: FastifyInstance): Promise<void> {
    const identify = (how: 'token' | 'certificate' | 'either') => async (request: FastifyRequest, reply: FastifyReply) => {
      // The token goes before a certificate where both come: it is what the client was told to send.
      const certificateId = how === 'token' || (how === 'either' && request.headers.authorization) ? undefined : request.clientCertificateId()
      if (certificateId === undefined && how === 'certificate') throw new CvmError('client-certificate-required')
      request.enrollee = certificateId === undefined ? credentialsOf(request.headers.authorization) : { certificateId }
      await app.limitSerialNumber(certificateId ?? request.enrollee.serialNumber ?? '', request, reply)
    }
    const ofDevices = (...how: Parameters<typeof identify>) => ({ config: { access: 'device' as const }, preHandler: identify(...how) })

    app.get('/cacerts', { config: { access: 'anyone' } }, async (_request, reply) => base64(reply).send(certificates(options.rootCaPem)))

    app.get('/csrattrs', { config: { access: 'anyone' } }, async (request, reply) => {
      const attributes = csrAttributes(productOfLabel(request as EstRequest)?.keyTypes ?? [])
      // Not 404, which ends cisco/libest's enrolment.
      return attributes ? base64(reply, 'application/csrattrs').send(base64Lines(attributes)) : reply.code(204).send()
    })

    app.post('/simpleenroll', ofDevices('either'), async (request, reply) => {
      const certificateSigningRequest = readEstCsr(request.body)
      const { certificate } = request.enrollee?.certificateId === undefined
        ? await options.vend({ ...askedBy(request as EstRequest), certificateSigningRequest })
        : await renewShown(request as EstRequest, request.enrollee.certificateId, certificateSigningRequest)
      return base64(secret(reply)).send(certificates(certificate.certificatePem))
    })

    app.post('/simplereenroll', ofDevices('certificate'), async (request, reply) => {
      const { certificateId = '' } = request.enrollee ?? {}
      const { certificate } = await renewShown(request as EstRequest, certificateId, readEstCsr(request.body))
      return base64(secret(reply)).send(certificates(certificate.certificatePem))
    })

    app.post('/serverkeygen', ofDevices('token'), async (request, reply) => {
      const asked = askedBy(request as EstRequest)
      // Its key is not certified (RFC 7030 section 4.4.1), but it may not name another device either.
      checkCsr(readEstCsr(request.body), { ...asked, commonName: commonNameRule(options.products) })
      const { keyPair, certificate } = await options.vend({ ...asked, callerGone: reply.callerGone() })
      if (!keyPair) throw new Error('a key-generating vend ended without a key pair')
      return secret(reply).type(`multipart/mixed; boundary=${BOUNDARY}`).send(keyAndCertificate(keyPair.privateKey, certificate.certificatePem))
    })
  }

  /**
   * By the id of the certificate that was shown, never by a name: what the CSR calls itself only says whose row to look at, for a
   * certificate that the index does not know, or not any more.
   */
  async function renewShown (request: EstRequest, certificateId: string, certificateSigningRequest: string): Promise<Renewed> {
    const { params: { label }, id: requestId, ip: address } = request
    const device = await options.findByCertificate(certificateId) ?? await named(certificateSigningRequest)
    const isIts = device !== undefined && [device.certificate?.certificateId, device.renewedFrom].includes(certificateId)
    if (!isIts) throw new CvmError('device-not-authorized', { detail: 'The certificate of the connection is not the present one of a device.' })
    if (label !== undefined && label !== device.product) throw new CvmError('product-mismatch')
    const { serialNumber } = device
    const proof = { kind: 'tls', certificateId } as const
    return await options.renew({ serialNumber, certificateSigningRequest, proof, swap: 'at-once', requestId, address })
  }

  async function named (certificateSigningRequest: string): Promise<Device | undefined> {
    const serialNumber = commonNameOf(certificateSigningRequest) ?? ''
    return new RegExp(SERIAL_NUMBER).test(serialNumber) ? await options.find(serialNumber) : undefined
  }

  /** The product that the label names; undefined without a label. */
  function productOfLabel ({ params: { label } }: EstRequest) {
    const product = label === undefined ? undefined : options.products.get(label)
    if (label !== undefined && !product) throw new CvmError('not-found', { detail: 'there is no product of this name' })
    return product
  }
}

function askedBy ({ enrollee, params: { label }, id, ip }: EstRequest) {
  const { serialNumber, registrationToken } = enrollee ?? {}
  if (serialNumber === undefined || registrationToken === undefined) throw new Error('nobody was identified')
  return { serialNumber, registrationToken, ...label !== undefined && { product: label }, requestId: id, address: ip }
}

/** Some clients name no type at all, though RFC 7030 section 4.2.1 wants it named. */
async function readBody ({ headers }: FastifyRequest, body: string): Promise<string> {
  const type = headers['content-type']?.split(';')[0]?.trim().toLowerCase() ?? ''
  if (type !== '' && type !== 'application/pkcs10') throw new CvmError('unsupported-media-type', { detail: 'send a PKCS#10 request as application/pkcs10' })
  return body
}

/** Serial number and registration token by HTTP Basic; the user name ends at the first colon (RFC 7617 section 2). */
function credentialsOf (authorization = ''): { serialNumber: string, registrationToken: string } {
  const [, base64 = ''] = /^Basic +([A-Za-z0-9+/=]{1,1024})$/i.exec(authorization) ?? []
  const [, serialNumber = '', registrationToken = ''] = /^([^:]*):([^]*)$/.exec(Buffer.from(base64, 'base64').toString()) ?? []
  const isToken = registrationToken.length > 0 && registrationToken.length <= 256
  if (isToken && new RegExp(SERIAL_NUMBER).test(serialNumber)) return { serialNumber, registrationToken }
  throw new CvmError('device-not-authorized', { detail: 'send the serial number and the registration token by HTTP Basic' })
}

function secret (reply: FastifyReply): FastifyReply {
  return reply.header('cache-control', 'no-store')
}

/** RFC 8951 section 2.1 takes the encoding's header back, but estclient and strongSwan do not decode without it. */
function base64 (reply: FastifyReply, type = CERTS_ONLY): FastifyReply {
  return reply.header('content-transfer-encoding', 'base64').type(type)
}

/** RFC 7030 section 4.1.3. */
function certificates (pem: string): string {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return base64Lines(certsOnly(blocks.map(block => decodePem(block, { labels: ['CERTIFICATE'], maxChars: 65_536 }))))
}

/** RFC 7030 section 4.4.2. */
function keyAndCertificate (privateKeyPem: string, certificatePem: string): string {
  const key = base64Lines(createPrivateKey(privateKeyPem).export({ type: 'pkcs8', format: 'der' }))
  return [['application/pkcs8', key], [CERTS_ONLY, certificates(certificatePem)]]
    .map(([type, body]) => `--${BOUNDARY}\r\nContent-Type: ${type}\r\nContent-Transfer-Encoding: base64\r\n\r\n${body}\r\n`).join('') + `--${BOUNDARY}--\r\n`
}

/** Plain text for people (RFC 7030 section 4.2.3), with the code for programs. */
function answerFailure (error: CvmError) {
  const { status, remedy } = ERRORS[error.code]
  const code = [error.code, error.reason].filter(Boolean).join(' ')
  return {
    status: PENDING.includes(error.code) ? 202 : status,
    type: 'text/plain; charset=utf-8',
    text: `${error.message}\n${remedy}\n(${code})\n`,
    ...status === 401 && { challenge: 'Basic realm="cvm"' }
  }
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks. */
    enrollee: Enrollee | null
  }
}
