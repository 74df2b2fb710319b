import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import dynalite from 'dynalite'
import { InterruptedWrites } from './interrupted-writes.ts'
import { LevelLog } from './level-log.ts'
import { authority, listen } from './listen.ts'

const READS = /^(BatchGet|Get|Describe|List|Query|Scan)/

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/**
 * A DynamoDB-compatible store, in the folder `dir` or in memory without one. Tables are there the moment they are created, and what was
 * answered is on the disk.
 */
export async function startDynamodb (host: string, port: number, dir = ''): Promise<Running> {
  if (dir === '') return await serve(host, port)
  const writes = new InterruptedWrites(`${dir}.journal`)
  const again = writes.read()
  if (again.length > 0) {
    const { url, close } = await serve('127.0.0.1', 0, { dir })
    try {
      for (const { target, body } of again) await repeat(url, target, body)
    } finally {
      await close()
    }
  }
  const running = await serve(host, port, { dir, writes })
  writes.open()
  const close = async (): Promise<void> => {
    await running.close()
    writes.close()
  }
  return { url: running.url, close }
}

interface Running { readonly url: string, readonly close: () => Promise<void> }
interface Folder { readonly dir: string, readonly writes?: InterruptedWrites }

async function serve (host: string, port: number, folder?: Folder): Promise<Running> {
  const dir = folder?.dir ?? ''
  const server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0, ...(dir === '' ? {} : { path: dir }) })
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve, reject) => {
      server.close(error => { if (error === undefined || error === null) resolve(); else reject(error) })
    })
    // SDK clients keep connections open; waiting for them would outlast any stop timeout.
    server.closeAllConnections()
    await closed
  }
  try {
    const url = `http://${authority(host, await listen(server, host, port, 'LOCAL_DYNAMODB_PORT'))}`
    answerWhenTrue(server, url, folder)
    return { url, close }
  } catch (error) {
    // dynalite lets go of its files only when a server that listens is closed.
    await listen(server, '127.0.0.1', 0, 'LOCAL_DYNAMODB_PORT')
    await close()
    throw error
  }
}

/**
 * Holds answers back until they are true. dynalite answers CreateTable a moment before the table can be used, a longer one on a disk; and
 * what it has written is then with the operating system, where SIGKILL cannot undo it but a power failure can.
 */
function answerWhenTrue (server: Server, url: string, folder: Folder | undefined): void {
  const log = folder && new LevelLog(folder.dir)
  const [answer] = server.listeners('request') as Listener[]
  server.removeAllListeners('request').on('request', (request: IncomingMessage, response: ServerResponse) => {
    const operation = String(request.headers['x-amz-target']).split('.').at(-1) ?? ''
    const end = response.end.bind(response)
    const until = async (body: string): Promise<void> => {
      // What is no answer about a table is as it is.
      if (operation === 'CreateTable') await Promise.allSettled([active(url, request, body)])
      await log?.synced()
    }
    const isWrite = !READS.test(operation)
    const begun = isWrite && folder?.writes ? noted(request, folder.writes) : undefined
    if (operation === 'CreateTable' || (log !== undefined && isWrite)) {
      response.end = ((body: string) => {
        begun?.done()
        until(body).then(() => end(body), (error: Error) => { end(failed(response, error)) })
        return response
      }) as ServerResponse['end']
    }
    answer?.(request, response)
  })
}

/** Notes a write once it has come in whole, which is before dynalite, that listens next, begins it. */
function noted (request: IncomingMessage, writes: InterruptedWrites): { done: () => void } {
  const chunks: Buffer[] = []
  let id: number | undefined
  request.on('data', (chunk: Buffer) => { chunks.push(chunk) })
  request.on('end', () => { id = writes.begin(String(request.headers['x-amz-target']), Buffer.concat(chunks).toString()) })
  return { done: () => { if (id !== undefined) writes.end(id) } }
}

/** Makes a write again; that its condition does not hold any more is one of the ways in which it may end. */
async function repeat (url: string, target: string, body: string): Promise<void> {
  const authorization = 'AWS4-HMAC-SHA256 Credential=local/20000101/local/dynamodb/aws4_request, SignedHeaders=host, Signature=0'
  const headers = { 'x-amz-target': target, 'x-amz-date': '20000101T000000Z', 'content-type': 'application/x-amz-json-1.0', authorization }
  await (await fetch(url, { method: 'POST', headers, body })).arrayBuffer()
}

/** What DynamoDB says when it has failed; SDKs ask again. */
function failed (response: ServerResponse, { message }: Error): string {
  const body = JSON.stringify({ __type: 'com.amazonaws.dynamodb.v20120810#InternalServerError', message: `The local store cannot be written: ${message}` })
  response.statusCode = 500
  response.removeHeader('x-amz-crc32')
  response.setHeader('content-length', Buffer.byteLength(body))
  return body
}

/** Asks, in the name of whoever created the table, until it is ACTIVE; what is no answer about a table is as it is. */
async function active (url: string, { headers }: IncomingMessage, body: string): Promise<void> {
  const { TableDescription: table } = JSON.parse(body) as { TableDescription?: { TableName: string } }
  if (table === undefined) return
  const { 'x-amz-target': target, authorization = '', 'x-amz-date': date, 'content-type': type = '' } = headers
  const asked = { 'x-amz-target': String(target).replace('CreateTable', 'DescribeTable'), authorization, 'x-amz-date': String(date), 'content-type': type }
  for (let status: string | undefined; status !== 'ACTIVE';) {
    const told = await fetch(url, { method: 'POST', headers: asked, body: JSON.stringify({ TableName: table.TableName }) })
    if (!told.ok) return
    status = (await told.json() as { Table?: { TableStatus: string } }).Table?.TableStatus
  }
}
