import dynalite from 'dynalite'
import { authority, listen } from './listen.ts'

/** A DynamoDB-compatible store in memory; tables are there the moment they are created. */
export async function startDynamodb (host: string, port: number): Promise<{ url: string, close: () => Promise<void> }> {
  const server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 })
  const taken = await listen(server, host, port, 'LOCAL_DYNAMODB_PORT')
  return {
    url: `http://${authority(host, taken)}`,
    close: async () => {
      const closed = new Promise<void>((resolve, reject) => {
        server.close(error => { if (error === undefined || error === null) resolve(); else reject(error) })
      })
      // SDK clients keep connections open; waiting for them would outlast any stop timeout.
      server.closeAllConnections()
      await closed
    }
  }
}
