import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import dynalite from 'dynalite'
import { authority, listen } from './listen.ts'

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/** A DynamoDB-compatible store, in the folder `dir` or in memory without one; tables are there the moment they are created. */
export async function startDynamodb (host: string, port: number, dir = ''): Promise<{ url: string, close: () => Promise<void> }> {
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
    answerWhenActive(server, url)
    return { url, close }
  } catch (error) {
    // dynalite lets go of its files only when a server that listens is closed.
    await listen(server, '127.0.0.1', 0, 'LOCAL_DYNAMODB_PORT')
    await close()
    throw error
  }
}

/** dynalite answers CreateTable a moment before the table can be used, a longer one on a disk; the answer is held back till then. */
function answerWhenActive (server: Server, url: string): void {
  const [answer] = server.listeners('request') as Listener[]
  server.removeAllListeners('request').on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (String(request.headers['x-amz-target']).endsWith('.CreateTable')) {
      const end = response.end.bind(response)
      response.end = ((body: string) => {
        active(url, request, body).then(() => end(body), () => end(body))
        return response
      }) as ServerResponse['end']
    }
    answer?.(request, response)
  })
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
