import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { CvmError, ERRORS, type ErrorCode } from '../errors.ts'
import type { DeviceProof } from '../vending/check-token.ts'
import { SERIAL_NUMBER } from '../vending/names.ts'
import type { Desired, ShadowDocument } from '../vending/shadows.ts'
import type { VendRequest, Vended } from '../vending/vend-steps.ts'

/** When the contract of the old services was deprecated here: 2026-11-20, in epoch seconds (RFC 9745). */
const DEPRECATED_AT = 1_795_132_800

/** The members of a request that are no state. Exactly these: a `myserialNumber2` is one. */
const CREDENTIALS = ['serialNumber', 'deviceToken']

/** Old tokens are as their operators made them. */
const MAX_TOKEN = 1024

/** What the old services said. Everything that concerns who asks is said alike. */
const WORDS: Readonly<Partial<Record<ErrorCode, readonly [number, string]>>> = {
  'device-not-authorized': [500, 'Access Denied'],
  'device-disabled': [500, 'Access Denied'],
  'device-revoked': [500, 'Access Denied'],
  'device-decommissioned': [500, 'Access Denied'],
  'registry-unavailable': [500, 'Service error'],
  'internal-error': [500, 'Service error'],
  'malformed-json': [400, 'Bad Request'],
  'shadow-rejected': [400, 'Bad Request']
}

/** What they had no answer of their own for, because something before them gave it. */
const OF_THE_FRONT: readonly ErrorCode[] = [
  'request-timeout', 'body-too-large', 'shadow-too-large', 'unsupported-media-type', 'invalid-request', 'rate-limited', 'overloaded'
]

type Members = Readonly<Record<string, unknown>>
type Oneself = DeviceProof & { requestId: string, address: string }

export interface LegacyCvmOptions {
  vend: (request: VendRequest & { address: string, route: string }) => Promise<Vended>
  showOwnShadow: (oneself: Oneself) => Promise<ShadowDocument | undefined>
  changeOwnShadow: (oneself: Oneself, desired: Desired) => Promise<ShadowDocument>
  /** What devices are to trust in AWS IoT; the old services told the first certificate of it. */
  rootCaPem: string
  /** When these routes may go, in epoch milliseconds (RFC 8594). */
  sunset: number | undefined
}

/** The contract of the earlier certificate vending machines for their firmware, with a token in the URL. Nothing new should use it. */
export async function legacyCvmRoutes (app: FastifyInstance, options: LegacyCvmOptions): Promise<void> {
  const { vend, showOwnShadow, changeOwnShadow, sunset } = options
  const [rootCa = ''] = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/.exec(options.rootCaPem) ?? []
  const common = { access: 'device' } as const
  // A HEAD would vend a key pair that nobody gets; the API's description is for new clients.
  const [exposeHeadRoute, schema] = [false, { hide: true } as object]

  app.addHook('onSend', async (_request, reply) => {
    reply.header('deprecation', `@${DEPRECATED_AT}`)
    if (sunset !== undefined) reply.header('sunset', new Date(sunset).toUTCString())
  })
  // Old clients send JSON under any name, curl's for forms above all, or none.
  app.addHook('onRequest', async ({ raw }) => { delete raw.headers['content-type'] })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, async (request: FastifyRequest, body: Buffer) => body.length === 0 ? {} : await app.readJson(request, body))

  app.get('/getcert', { config: { ...common, answerFailure: inOldWords('Error issuing certificate!') }, exposeHeadRoute, schema }, async (request, reply) => {
    reply.header('link', '</v1/keys-and-certificates>; rel="successor-version"')
    const oneself = await askerOf(request, reply)
    const { certificate, keyPair } = await vend({ ...oneself, route: '/getcert', callerGone: reply.callerGone() })
    if (!keyPair) throw new Error('a key-generating vend ended without a key pair')
    const { certificateArn, certificateId, certificatePem } = certificate
    const { publicKey: PublicKey, privateKey: PrivateKey } = keyPair
    return tell(reply, { certificateArn, certificateId, certificatePem, keyPair: { PublicKey, PrivateKey }, RootCA: rootCa })
  })

  const config = { ...common, answerFailure: inOldWords('Service error') }

  app.get('/shadow', { config, exposeHeadRoute, schema }, async (request, reply) => {
    const shadow = await showOwnShadow(await askerOf(request, reply))
    return tell(reply, stateIn(shadow?.state.reported ?? {}))
  })

  app.put('/shadow', { config, schema }, async (request, reply) => {
    const oneself = await askerOf(request, reply)
    const shadow = await changeOwnShadow(oneself, wantedBy(request, oneself))
    return tell(reply, shadow.state.desired ?? {})
  })

  async function askerOf (request: FastifyRequest, reply: FastifyReply): Promise<Oneself> {
    const proof = proofOf(membersOf(request))
    await app.limitSerialNumber(proof.serialNumber, request, reply)
    return { ...proof, requestId: request.id, address: request.ip }
  }
}

/** Query and body, in the order in which the old services put one over the other. */
function membersOf ({ query, body = {} }: FastifyRequest): [query: Members, body: Members] {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new CvmError('malformed-json', { detail: 'the body is not a JSON object' })
  return [query as Members, body as Members]
}

/**
 * Who asks. Query and body may both say it, but not differently: else one device could be checked and another acted for. What is not of
 * the right form is no device's.
 */
function proofOf (members: readonly Members[]): DeviceProof {
  const [serialNumber, registrationToken] = CREDENTIALS.map(name => {
    const said = members.filter(each => Object.hasOwn(each, name)).map(each => each[name])
    return said.every(each => each === said[0]) ? said[0] : undefined
  })
  const isSerialNumber = typeof serialNumber === 'string' && new RegExp(SERIAL_NUMBER).test(serialNumber)
  const isToken = typeof registrationToken === 'string' && registrationToken.length > 0 && registrationToken.length <= MAX_TOKEN
  if (!isSerialNumber || !isToken) throw new CvmError('device-not-authorized')
  return { serialNumber, registrationToken }
}

/** What a PUT wants: the query's members under those of the body, without the credentials. The token must not get in under another name. */
function wantedBy (request: FastifyRequest, { registrationToken }: DeviceProof): Members {
  const [query, body] = membersOf(request)
  // The balancer of the old services told them the last of several.
  const last = Object.entries(query).map(([name, value]) => [name, Array.isArray(value) ? value.at(-1) as unknown : value])
  const wanted = stateIn({ ...Object.fromEntries(last) as Members, ...body })
  if (holds(wanted, registrationToken)) throw new CvmError('shadow-rejected', { detail: 'it holds the device token' })
  return wanted
}

function stateIn (members: Members): Members {
  return Object.fromEntries(Object.entries(members).filter(([name]) => !CREDENTIALS.includes(name)))
}

/** Whether a text is a member's name or value at any depth; a loop, because there is no bound on the depth. */
function holds (value: unknown, text: string): boolean {
  const pending = [value]
  while (pending.length > 0) {
    const next = pending.pop()
    if (next === text) return true
    if (typeof next === 'object' && next !== null) pending.push(...Object.keys(next), ...Object.values(next))
  }
  return false
}

/** As the old services wrote JSON. */
function tell (reply: FastifyReply, content: object): FastifyReply {
  return reply.header('cache-control', 'no-store').type('application/json').serializer(String).send(JSON.stringify(content, null, '\t'))
}

/** Failures as the old services told them, `rest` where they made no difference. */
function inOldWords (rest: string): (error: CvmError) => { status: number, type: string, text: string } {
  return ({ code }) => {
    const { status: itsOwn, title } = ERRORS[code]
    const [status, text] = WORDS[code] ?? (OF_THE_FRONT.includes(code) ? [itsOwn, title] : [500, rest])
    return { status, type: 'text/plain', text }
  }
}
