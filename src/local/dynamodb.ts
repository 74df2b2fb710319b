import dynalite from 'dynalite'
import { authority, listen } from './listen.ts'

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
    return { url: `http://${authority(host, await listen(server, host, port, 'LOCAL_DYNAMODB_PORT'))}`, close }
  } catch (error) {
    // dynalite lets go of its files only when a server that listens is closed.
    await listen(server, '127.0.0.1', 0, 'LOCAL_DYNAMODB_PORT')
    await close()
    throw error
  }
}
