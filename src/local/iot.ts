import { randomUUID } from 'node:crypto'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Account } from './account.ts'
import { AwsError, invalidRequest } from './aws-error.ts'
import { faultPlan, Faults, type FaultPlan } from './faults.ts'
import { authority, listen } from './listen.ts'
import type { Log } from './log.ts'
import type { Operations } from './operation.ts'
import { operationsOf } from './operations.ts'

/** The services a request may be signed for, by plane; AWS's SDKs sign the control plane's for `execute-api` in versions up to 2022. */
const SERVICES = { control: ['iot', 'execute-api'], data: ['iotdata', 'iotdevicegateway'] } as const

/** What a route remembers of its operation. */
declare module 'fastify' {
  interface FastifyContextConfig { plane?: 'data', unsigned?: true }
}

/** AWS IoT over HTTP, control plane and data plane on one port; wire rules as in aws-facts 1.0 and 1.8. */
export async function startIot (
  account: Account, host: string, port: number, log: Log, faults?: FaultPlan
): Promise<{ url: string, close: () => Promise<void> }> {
  const app = httpApi(account, log, faults)
  await app.ready()
  try {
    const taken = await listen(app.server, host, port, 'LOCAL_IOT_PORT')
    return { url: `http://${authority(host, taken)}`, close: async () => { await app.close() } }
  } catch (error) {
    await app.close()
    throw error
  }
}

function httpApi (account: Account, log: Log, plan: FaultPlan | undefined): FastifyInstance {
  const app = fastify({
    // A certificate ARN in the path has 104 characters and more; Fastify allows 100.
    routerOptions: { maxParamLength: 2048 },
    forceCloseConnections: true,
    genReqId: () => randomUUID(),
    // A path that cannot be decoded never reaches the error handler below.
    frameworkErrors: (error, request, reply) => { refuse(error, request, reply, log) }
  })
  // The SDK sends bodies with and without content-type, and calls without a body that name one.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, async (_request: FastifyRequest, body: string | Buffer) => body)

  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-amzn-requestid', request.id)
    const { plane, unsigned } = request.routeOptions.config
    if (unsigned !== true) requireSignature(request.headers.authorization, SERVICES[plane ?? 'control'])
  })
  app.addHook('onResponse', async (request, reply) => {
    log.debug({ requestId: request.id, method: request.method, url: request.url, status: reply.statusCode }, 'local AWS IoT call')
  })
  app.setErrorHandler((error, request, reply) => { refuse(error, request, reply, log) })
  app.setNotFoundHandler(request => {
    throw new AwsError('UnknownOperationException', `The local AWS IoT has no operation at ${request.method} ${request.url.split('?')[0]}`)
  })
  const operations = operationsOf(account)
  const names = new Set(Object.keys(operations))
  const faults = plan === undefined ? undefined : new Faults(faultPlan(plan, names))
  serve(app, account, operations, faults)
  if (faults !== undefined) administer(app, faults, names)
  return app
}

function serve (app: FastifyInstance, account: Account, operations: Operations, faults = new Faults()): void {
  for (const [name, { method, url, plane, unsigned, run }] of Object.entries(operations)) {
    app.route<{ Params: Record<string, string>, Querystring: Record<string, unknown>, Body: Buffer | undefined }>({
      method,
      url,
      exposeHeadRoute: false,
      config: { ...(plane === undefined ? {} : { plane }), ...(unsigned === undefined ? {} : { unsigned }) },
      handler: async ({ params, query, body: payload = Buffer.alloc(0), headers }, reply) => {
        const work = async (): Promise<object | Buffer> => {
          if (plane === undefined) account.quotas.takeOperation(name)
          const body = plane === 'data' ? {} : parse(payload)
          const principal = headers['x-amzn-principal']
          try {
            return await run({ params, query, headers, body, payload, principal: typeof principal === 'string' ? principal : undefined })
          } finally {
            // Whatever came of it, what may have changed the state is a reason to keep it.
            if (method !== 'GET') account.touch()
            // No answer tells what a crash could undo; that goes for reading what another call has just changed, too.
            await account.state?.settled()
          }
        }
        const outcome = await faults.apply(name, work)
        if ('answer' in outcome) return await reply.type('application/json').send(outcome.answer)
        reply.hijack()
        if (outcome.ending === 'cut') reply.raw.destroy()
        return reply
      }
    })
  }
}

/** What faults.ts describes at its top. */
function administer (app: FastifyInstance, faults: Faults, operations: ReadonlySet<string>): void {
  const config = { unsigned: true } as const
  const url = '/_local/faults'
  app.get(url, { config }, async () => faults.report())
  app.delete(url, { config }, async () => {
    faults.set({ rules: [] })
    return faults.report()
  })
  app.put<{ Body: Buffer | undefined }>(url, { config }, async ({ body }) => {
    faults.set(faultPlan(json(body ?? Buffer.alloc(0)), operations))
    return faults.report()
  })
}

/** Any key will do, but a request without a signature for the right service is a client that would fail on AWS. */
function requireSignature (authorization: string | undefined, services: readonly string[]): void {
  if (authorization === undefined || !authorization.startsWith('AWS4-HMAC-SHA256 ')) {
    throw new AwsError('MissingAuthenticationTokenException', 'Missing Authentication Token')
  }
  const scope = /[ ,]Credential=[^/,\s]+\/\d{8}\/[^/,\s]+\/([^/,\s]+)\/aws4_request\s*(,|$)/.exec(authorization)
  if (!services.includes(scope?.[1] ?? '') || !authorization.includes('Signature=')) {
    throw new AwsError('InvalidSignatureException', `Credential should be scoped to correct service: '${services[0]}'.`)
  }
}

function parse (payload: Buffer): Record<string, unknown> {
  const value = payload.length === 0 ? {} : json(payload)
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new AwsError('SerializationException', 'The request body is not a JSON object')
}

function json (payload: Buffer): unknown {
  try {
    return JSON.parse(payload.toString())
  } catch {
    throw new AwsError('SerializationException', 'The request body is not JSON')
  }
}

function refuse (error: unknown, request: FastifyRequest, reply: FastifyReply, log: Log): void {
  const known = error instanceof AwsError ? error : translated(error)
  const data = request.routeOptions.config.plane === 'data'
  const status = data && known.code === 'ThrottlingException' ? 429 : known.status
  if (status === 500) log.error({ err: error, method: request.method, url: request.url }, 'local AWS IoT failed')
  reply.code(status).header('x-amzn-errortype', known.code).type('application/json')
    .send({ ...(data ? { code: status } : {}), message: known.message, ...known.members })
}

/** Fastify's own refusals (body too large, bad URL) are the client's fault; anything else is a fault of this emulator. */
function translated (error: unknown): AwsError {
  const status = (error as { statusCode?: number }).statusCode
  return status !== undefined && status < 500
    ? invalidRequest((error as Error).message)
    : new AwsError('InternalFailureException', 'The local AWS IoT failed; see its log')
}
