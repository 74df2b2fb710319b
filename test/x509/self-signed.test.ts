import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer } from 'node:tls'
import t from 'tap'
import { makeServerCertificate } from '../../src/x509/self-signed.ts'

await t.test('a client that does not check certificates gets a TLS connection; one that trusts it alone, too', async t => {
  const { cert, key } = await makeServerCertificate(Date.now())
  const server = createServer({ cert, key, minVersion: 'TLSv1.2' }, socket => { socket.end('served') }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  for (const trust of [{ rejectUnauthorized: false }, { ca: cert, checkServerIdentity: () => undefined }]) {
    const socket = connect({ host: '127.0.0.1', port, ...trust })
    t.equal(String((await once(socket, 'data'))[0]), 'served')
    socket.destroy()
  }
  const other = await makeServerCertificate(Date.now())
  t.not(other.key, key, 'each process has a key of its own')
})
