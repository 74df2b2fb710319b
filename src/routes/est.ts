import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { CvmError } from '../errors.ts'
import { answerFailure } from '../schemas/est-failures.ts'
import { DEFAULT_PRODUCT, type Device } from '../vending/device.ts'
import { SERIAL_NUMBER } from '../vending/names.ts'
import { type Products, commonNameRule } from '../vending/product.ts'
import type { RenewRequest, Renewed } from '../vending/renew.ts'
import type { VendRequest, Vended } from '../vending/vend-steps.ts'
import { checkCsr, commonNameOf } from '../x509/csr.ts'
import { csrAttributes } from '../x509/csr-attributes.ts'
import { readEstCsr } from '../x509/est-body.ts'
import { BOUNDARY, CERTS_ONLY, base64Of, certificatesOf, keyAndCertificate } from '../x509/est-answer.ts'

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
      request.enrollee = certificateId === undefined ? credentialsOf(request.headers.authorization, request.body) : { certificateId }
      await app.limitSerialNumber(certificateId ?? request.enrollee.serialNumber ?? '', request, reply)
    }
    // Nothing here is for browsers, and some clients keep few headers.
    const ofAnyone = { helmet: false as const, config: { access: 'anyone' as const } }
    const ofDevices = (...how: Parameters<typeof identify>) =>
      ({ helmet: false as const, config: { access: 'device' as const }, preHandler: identify(...how) })

    app.get('/cacerts', ofAnyone, async (request, reply) =>
      base64(reply).send(certificatesOf(options.rootCaPem, layoutFor(request as EstRequest))))

    app.get('/csrattrs', ofAnyone, async (request, reply) => {
      const attributes = csrAttributes(productOfLabel(request as EstRequest)?.keyTypes ?? [])
      // Not 404, which ends cisco/libest's enrolment.
      return attributes ? base64(reply, 'application/csrattrs').send(base64Of(attributes, layoutFor(request as EstRequest))) : reply.code(204).send()
    })

    app.post('/simpleenroll', ofDevices('either'), async (request, reply) => {
      const certificateSigningRequest = readEstCsr(request.body)
      const { certificate, product } = request.enrollee?.certificateId === undefined
        ? await options.vend({ ...askedBy(request as EstRequest), certificateSigningRequest })
        : await renewShown(request as EstRequest, request.enrollee.certificateId, certificateSigningRequest)
      return base64(secret(reply)).send(certificatesOf(certificate.certificatePem, layoutOf(product)))
    })

    app.post('/simplereenroll', ofDevices('certificate'), async (request, reply) => {
      const { certificateId = '' } = request.enrollee ?? {}
      const { certificate, product } = await renewShown(request as EstRequest, certificateId, readEstCsr(request.body))
      return base64(secret(reply)).send(certificatesOf(certificate.certificatePem, layoutOf(product)))
    })

    app.post('/serverkeygen', ofDevices('token'), async (request, reply) => {
      const asked = askedBy(request as EstRequest)
      // Its key is not certified (RFC 7030 section 4.4.1), but it may not name another device either.
      checkCsr(readEstCsr(request.body), { ...asked, commonName: commonNameRule(options.products) })
      const { keyPair, certificate, product } = await options.vend({ ...asked, callerGone: reply.callerGone() })
      if (!keyPair) throw new Error('a key-generating vend ended without a key pair')
      const parts = keyAndCertificate(keyPair.privateKey, certificate.certificatePem, layoutOf(product))
      return secret(reply).type(`multipart/mixed; boundary=${BOUNDARY}`).send(parts)
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

  /** As the clients of a product read base64; as those of the default one where it is not in the file any more. */
  function layoutOf (product: string) {
    return (options.products.get(product) ?? options.products.get(DEFAULT_PRODUCT))?.estBase64 ?? 'lines'
  }

  /** Before the device is known. */
  function layoutFor ({ params: { label = DEFAULT_PRODUCT } }: EstRequest) {
    return layoutOf(label)
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
  if (type !== '' && type !== 'application/pkcs10') throw new CvmError('unsupported-media-type', { detail: `The media type is ${shown(type)}, not application/pkcs10.` })
  return body
}

/**
 * Serial number and registration token by HTTP Basic. The user name ends at the first colon (RFC 7617 section 2), unless the request names
 * a device with colons, such as a MAC address, and the credentials begin with that name: then the name is the user name.
 * @throws {CvmError} `device-not-authorized`.
 */
function credentialsOf (authorization: string | undefined, body: unknown): { serialNumber: string, registrationToken: string } {
  const [, base64 = ''] = /^Basic +([A-Za-z0-9+/=]{1,1024})$/i.exec(authorization ?? '') ?? []
  const text = Buffer.from(base64, 'base64').toString()
  const colon = text.indexOf(':', lengthOfNamed(text, body))
  const [serialNumber, registrationToken] = [text.slice(0, Math.max(0, colon)), text.slice(colon + 1)]
  const isToken = registrationToken.length > 0 && registrationToken.length <= 256
  if (colon >= 0 && isToken && new RegExp(SERIAL_NUMBER).test(serialNumber)) return { serialNumber, registrationToken }
  throw new CvmError('device-not-authorized', { detail: 'The request has no serial number and registration token by HTTP Basic.' })
}

function lengthOfNamed (text: string, body: unknown): number {
  if (!/^[^:]*:[^:]*:/.test(text)) return 0
  const name = nameIn(body) ?? ''
  return name.includes(':') && text.startsWith(`${name}:`) ? name.length : 0
}

/** The common name of the request in a body; undefined where there is none, or where the body is no request. */
function nameIn (body: unknown): string | undefined {
  try {
    return commonNameOf(readEstCsr(body))
  } catch (cause) {
    if (cause instanceof CvmError) return undefined
    throw cause
  }
}

/** What was sent as a media type, as far as it can be shown. */
function shown (type: string): string {
  return type.replace(/[^a-z0-9/+.-]/g, '?').slice(0, 64)
}

function secret (reply: FastifyReply): FastifyReply {
  return reply.header('cache-control', 'no-store')
}

/** RFC 8951 section 2.1 takes the encoding's header back, but estclient and strongSwan do not decode without it. */
function base64 (reply: FastifyReply, type = CERTS_ONLY): FastifyReply {
  return reply.header('content-transfer-encoding', 'base64').type(type)
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks. */
    enrollee: Enrollee | null
  }
}
