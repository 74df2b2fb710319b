// Terraform's plugin protocol, version 5, as far as a provider needs it whose resources are made, kept and forgotten, never changed.
import { execFileSync } from 'node:child_process'
import { randomUUID, X509Certificate } from 'node:crypto'
import { tmpdir } from 'node:os'
import process from 'node:process'
import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall, type ServiceDefinition, status } from '@grpc/grpc-js'
import { fromJSON } from '@grpc/proto-loader'
import { decode, encode, ExtensionCodec } from '@msgpack/msgpack'

/** An attribute: its type in Terraform's JSON, and who gives it a value. */
export type Attribute = { type: unknown, required?: true, optional?: true, computed?: true, sensitive?: true }
export type Values = Record<string, unknown>

export interface Resource {
  attributes: Record<string, Attribute>
  /** Blocks that may be there once. */
  blocks?: Record<string, Record<string, Attribute>>
  /** The values of what is computed. */
  make: (given: Values) => Values
}

/** A value that is not known before it is made. */
class Unknown {}
const isUnknown = (value: unknown) => value instanceof Unknown

const extensionCodec = new ExtensionCodec()
// Type 0 is a value that is not known, type 12 one of which something is.
for (const type of [0, 12]) {
  extensionCodec.register({ type, encode: value => type === 0 && isUnknown(value) ? Uint8Array.of(0) : null, decode: () => new Unknown() })
}
const read = ({ msgpack }: { msgpack: Uint8Array }) => decode(msgpack, { extensionCodec }) as Values | null
const write = (values: Values | null) => ({ msgpack: encode(values, { extensionCodec }) })

const message = (fields: Record<string, string>) => ({
  fields: Object.fromEntries(Object.entries(fields).map(([name, kind]) => {
    const [type = '', id, rule] = kind.split(' ')
    const map = type.startsWith('map:') && { keyType: 'string', type: type.slice('map:'.length) }
    return [name, { type, id: Number(id), ...(rule && { rule }), ...map }]
  }))
})

/** What the protocol says, by method: the members of its request and of its answer. */
const METHODS: Record<string, [Record<string, string>, Record<string, string>]> = {
  GetSchema: [{}, { provider: 'Schema 1', resourceSchemas: 'map:Schema 2' }],
  PrepareProviderConfig: [{ config: 'Value 1' }, { preparedConfig: 'Value 1' }],
  Configure: [{ config: 'Value 2' }, {}],
  ValidateResourceTypeConfig: [{ typeName: 'string 1' }, {}],
  UpgradeResourceState: [{ typeName: 'string 1', rawState: 'Raw 3' }, { upgradedState: 'Value 1' }],
  ReadResource: [{ typeName: 'string 1', currentState: 'Value 2' }, { newState: 'Value 1' }],
  PlanResourceChange: [
    { typeName: 'string 1', priorState: 'Value 2', proposedNewState: 'Value 3', config: 'Value 4' },
    { plannedState: 'Value 1', requiresReplace: 'Path 2 repeated' }
  ],
  ApplyResourceChange: [{ typeName: 'string 1', plannedState: 'Value 3' }, { newState: 'Value 1' }],
  Stop: [{}, {}]
}

const TYPES = {
  Value: message({ msgpack: 'bytes 1', json: 'bytes 2' }),
  Raw: message({ json: 'bytes 1' }),
  Step: message({ attributeName: 'string 1' }),
  Path: message({ steps: 'Step 1 repeated' }),
  Attribute: message({ name: 'string 1', type: 'bytes 2', required: 'bool 4', optional: 'bool 5', computed: 'bool 6', sensitive: 'bool 7' }),
  Nested: message({ typeName: 'string 1', block: 'Block 2', nesting: 'int32 3', maxItems: 'int64 5' }),
  Block: message({ version: 'int64 1', attributes: 'Attribute 2 repeated', blockTypes: 'Nested 3 repeated' }),
  Schema: message({ version: 'int64 1', block: 'Block 2' }),
  ...Object.fromEntries(Object.entries(METHODS).flatMap(([name, [request, answer]]) => [[`${name}Request`, message(request)], [`${name}Answer`, message(answer)]]))
}

const LIST = 2

function schemaOf ({ attributes, blocks = {} }: Pick<Resource, 'attributes' | 'blocks'>): object {
  const attribute = ([name, { type, ...flags }]: [string, Attribute]) => ({ name, type: Buffer.from(JSON.stringify(type)), ...flags })
  const blockTypes = Object.entries(blocks).map(([typeName, inner]) =>
    ({ typeName, block: { attributes: Object.entries(inner).map(attribute) }, nesting: LIST, maxItems: 1 }))
  return { version: 0, block: { attributes: Object.entries(attributes).map(attribute), blockTypes } }
}

type Request = Record<'config' | 'currentState' | 'priorState' | 'proposedNewState' | 'plannedState', { msgpack: Uint8Array }> &
  { typeName: string, rawState: { json: Uint8Array } }

function methodsOf (resources: Record<string, Resource>): Record<string, (request: Request) => object> {
  const resource = (name: string): Resource => {
    const found = resources[name]
    if (!found) throw new Error(`There is no ${name} here`)
    return found
  }
  const computed = (name: string) => Object.entries(resource(name).attributes).filter(([, { computed }]) => computed).map(([name]) => name)
  return {
    GetSchema: () => ({
      provider: schemaOf({ attributes: {} }),
      resourceSchemas: Object.fromEntries(Object.entries(resources).map(([name, each]) => [name, schemaOf(each)]))
    }),
    PrepareProviderConfig: ({ config }) => ({ preparedConfig: config }),
    Configure: () => ({}),
    ValidateResourceTypeConfig: () => ({}),
    UpgradeResourceState: ({ rawState: { json } }) => ({ upgradedState: write(JSON.parse(Buffer.from(json).toString()) as Values) }),
    ReadResource: ({ currentState: state }) => ({ newState: state }),
    PlanResourceChange: ({ typeName: name, priorState, proposedNewState, config }) => {
      const [prior, proposed, given] = [read(priorState), read(proposedNewState), read(config)]
      if (proposed === null || given === null) return { plannedState: write(null) }
      const changed = prior === null ? [] : Object.keys(given).filter(each => given[each] !== null && !sameValue(given[each], prior[each]))
      if (prior !== null && changed.length === 0) return { plannedState: write(prior) }
      const anew = Object.fromEntries(computed(name).filter(each => given[each] === null).map(each => [each, new Unknown()]))
      const requiresReplace = changed.map(attributeName => ({ steps: [{ attributeName }] }))
      return { plannedState: write({ ...given, ...anew }), requiresReplace }
    },
    ApplyResourceChange: ({ typeName: name, plannedState: planned }) => {
      const values = read(planned)
      if (values === null) return { newState: write(null) }
      const given = known(values)
      return { newState: write({ ...given, id: randomUUID(), ...resource(name).make(given) }) }
    },
    Stop: () => ({})
  }
}

const sameValue = (one: unknown, other: unknown) => !isUnknown(one) && JSON.stringify(one) === JSON.stringify(other)
const known = (values: Values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [name, isUnknown(value) ? null : value]))

/** What openssl prints in a folder. Nothing of the service's tests is imported here: Terraform starts this process a dozen times. */
export function openssl (args: string[], cwd = tmpdir()): string {
  return execFileSync('openssl', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Serves the one Terraform that started this process: says on stdout where, and with which certificate. */
export async function servePlugin (resources: Record<string, Resource>): Promise<void> {
  const server = new Server({ 'grpc.max_receive_message_length': -1 })
  serve(server, 'tfplugin5.Provider', TYPES, methodsOf(resources))
  serve(server, 'plugin.GRPCController', { ShutdownRequest: message({}), ShutdownAnswer: message({}) }, {
    Shutdown: () => {
      setImmediate(() => process.exit())
      return {}
    }
  })
  const pair = openssl(['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost', '-keyout', '-'])
  const [key = '', certificate = ''] = pair.split(/(?=-----BEGIN CERTIFICATE)/)
  const keys = [{ private_key: Buffer.from(key), cert_chain: Buffer.from(certificate) }]
  const port = await new Promise<number>((resolve, reject) => {
    const credentials = ServerCredentials.createSsl(Buffer.from(process.env['PLUGIN_CLIENT_CERT'] ?? ''), keys, true)
    server.bindAsync('127.0.0.1:0', credentials, (error, port) => error ? reject(error) : resolve(port))
  })
  process.stdout.write(`1|5|tcp|127.0.0.1:${port}|grpc|${new X509Certificate(certificate).raw.toString('base64').replaceAll('=', '')}\n`)
}

function serve (server: Server, name: string, types: object, methods: Record<string, (request: Request) => object>): void {
  const [folder = '', service = ''] = name.split('.')
  const signatures = Object.keys(methods).map(method => [method, { requestType: `${method}Request`, responseType: `${method}Answer`, comment: '' }])
  const nested = { [folder]: { nested: { ...types, [service]: { methods: Object.fromEntries(signatures) } } } }
  const definition = fromJSON({ nested } as Parameters<typeof fromJSON>[0])[name] as ServiceDefinition
  server.addService(definition, Object.fromEntries(Object.entries(methods).map(([method, answer]) =>
    [method, ({ request }: ServerUnaryCall<Request, object>, reply: sendUnaryData<object>) => {
      try {
        reply(null, answer(request))
      } catch (cause) {
        reply({ code: status.INTERNAL, details: (cause as Error).message })
      }
    }])))
}
