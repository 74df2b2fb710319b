import { randomUUID } from 'node:crypto'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Account } from './account.ts'
import { AwsError, invalidRequest } from './aws-error.ts'
import { certificateOperations } from './certificate-operations.ts'
import { optionalText } from './constraints.ts'
import { authority, listen } from './listen.ts'
import type { Log } from './log.ts'
import type { Operations } from './operation.ts'
import { policyOperations } from './policy-operations.ts'
import { thingOperations } from './thing-operations.ts'

const ENDPOINT_TYPES = ['iot:Data', 'iot:Data-ATS', 'iot:CredentialProvider', 'iot:Jobs', 'iot:DeviceAdvisor', 'iot:Data-Beta']

/** The AWS IoT control plane over HTTP, wire rules as in aws-facts 1.0 and 1.8. */
export async function startIot (
  account: Account, host: string, port: number, log: Log
): Promise<{ url: string, close: () => Promise<void> }> {
  const app = controlPlane(account, log)
  await app.ready()
  try {
    const taken = await listen(app.server, host, port, 'LOCAL_IOT_PORT')
    return { url: `http://${authority(host, taken)}`, close: async () => { await app.close() } }
  } catch (error) {
    await app.close()
    throw error
  }
}

function controlPlane (account: Account, log: Log): FastifyInstance {
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
  app.addContentTypeParser('*', { parseAs: 'string' }, async (_request: FastifyRequest, body: string | Buffer) => parse(String(body)))

  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-amzn-requestid', request.id)
    requireSignature(request.headers.authorization, 'iot')
  })
  app.addHook('onResponse', async (request, reply) => {
    log.debug({ requestId: request.id, method: request.method, url: request.url, status: reply.statusCode }, 'local AWS IoT call')
  })
  app.setErrorHandler((error, request, reply) => { refuse(error, request, reply, log) })
  app.setNotFoundHandler(request => {
    throw new AwsError('UnknownOperationException', `The local AWS IoT has no operation at ${request.method} ${request.url.split('?')[0]}`)
  })
  serve(app, { ...certificateOperations(account), ...thingOperations(account), ...policyOperations(account), ...endpoint(account) })
  return app
}

function serve (app: FastifyInstance, operations: Operations): void {
  for (const { method, url, run } of Object.values(operations)) {
    app.route<{ Params: Record<string, string>, Querystring: Record<string, unknown>, Body: Record<string, unknown> | undefined }>({
      method,
      url,
      exposeHeadRoute: false,
      handler: async ({ params, query, body, headers }, reply) => {
        const principal = headers['x-amzn-principal']
        const answer = await run({ params, query, body: body ?? {}, principal: typeof principal === 'string' ? principal : undefined })
        return await reply.send(answer)
      }
    })
  }
}

function endpoint (account: Account): Operations {
  return {
    DescribeEndpoint: {
      method: 'GET',
      url: '/endpoint',
      run: ({ query }) => {
        const type = optionalText(query['endpointType'], 'endpointType', { values: ENDPOINT_TYPES })
        // AWS refuses iot:Data and iot:Jobs since 2026; the other kinds of endpoint have nothing behind them here.
        if (type !== undefined && type !== 'iot:Data-ATS') throw invalidRequest(`The endpoint type ${type} is not available; ask for iot:Data-ATS`)
        return { endpointAddress: account.endpoint }
      }
    }
  }
}

/** Any key will do, but a request without a signature for the right service is a client that would fail on AWS. */
function requireSignature (authorization: string | undefined, service: string): void {
  if (authorization === undefined || !authorization.startsWith('AWS4-HMAC-SHA256 ')) {
    throw new AwsError('MissingAuthenticationTokenException', 'Missing Authentication Token')
  }
  const scope = /[ ,]Credential=[^/,\s]+\/\d{8}\/[^/,\s]+\/([^/,\s]+)\/aws4_request\s*(,|$)/.exec(authorization)
  if (scope?.[1] !== service || !authorization.includes('Signature=')) {
    throw new AwsError('InvalidSignatureException', `Credential should be scoped to correct service: '${service}'.`)
  }
}

function parse (body: string): unknown {
  if (body === '') return undefined
  try {
    const value: unknown = JSON.parse(body)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  } catch { /* answered below like any other body that is no object */ }
  throw new AwsError('SerializationException', 'The request body is not a JSON object')
}

function refuse (error: unknown, request: FastifyRequest, reply: FastifyReply, log: Log): void {
  const known = error instanceof AwsError ? error : translated(error)
  if (known.status === 500) log.error({ err: error, method: request.method, url: request.url }, 'local AWS IoT failed')
  reply.code(known.status).header('x-amzn-errortype', known.code).send({ message: known.message, ...known.members })
}

/** Fastify's own refusals (body too large, bad URL) are the client's fault; anything else is a fault of this emulator. */
function translated (error: unknown): AwsError {
  const status = (error as { statusCode?: number }).statusCode
  return status !== undefined && status < 500
    ? invalidRequest((error as Error).message)
    : new AwsError('InternalFailureException', 'The local AWS IoT failed; see its log')
}
