// Lists from files and from a real HTTP server that is slow, too large, elsewhere, broken, or says that nothing has changed.
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { CrlFilesAndUrls } from '../../src/adapters/crl-source.ts'

type Handler = (request: IncomingMessage, response: ServerResponse) => void

const MAX = 1_000
const failed = (reason: string) => ({ name: 'CrlFetchError', reason })

async function serving (t: Test, handler: Handler): Promise<{ url: string, requests: IncomingMessage[] }> {
  const requests: IncomingMessage[] = []
  const server = createServer((request, response) => { requests.push(request); handler(request, response) }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.closeAllConnections(); server.close() })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/a.crl?key=x`, requests }
}

function source (settings: Partial<ConstructorParameters<typeof CrlFilesAndUrls>[0]> = {}): CrlFilesAndUrls {
  return new CrlFilesAndUrls({ dir: '', timeoutMs: 60_000, maxBytes: MAX, ...settings })
}

await t.test('a list, and then that it is the same', async t => {
  const { url, requests } = await serving(t, ({ headers }, response) => {
    if (headers['if-none-match'] === '"one"' && headers['if-modified-since'] === 'Mon, 01 Jun 2026 00:00:00 GMT') response.writeHead(304).end()
    else response.writeHead(200, { etag: '"one"', 'last-modified': 'Mon, 01 Jun 2026 00:00:00 GMT' }).end('x'.repeat(MAX))
  })
  const fetched = await source().fetch(url, {})
  t.same(fetched, { bytes: Buffer.from('x'.repeat(MAX)), validators: { etag: '"one"', lastModified: 'Mon, 01 Jun 2026 00:00:00 GMT' } })
  t.equal(await source().fetch(url, fetched?.validators ?? {}), undefined)
  t.equal(requests[0]?.url, '/a.crl?key=x')
  t.match(requests[0]?.headers, { 'accept-encoding': 'identity', 'if-none-match': undefined, authorization: undefined, cookie: undefined })
})

await t.test('a server that says nothing of it', async t => {
  const { url } = await serving(t, (_request, response) => { response.end('list') })
  t.same(await source().fetch(url, {}), { bytes: Buffer.from('list'), validators: {} })
})

await t.test('too slow: to answer, or to come to an end', async t => {
  const silent = await serving(t, () => {})
  const trickling = await serving(t, (_request, response) => { response.writeHead(200).write('x') })
  for (const { url } of [silent, trickling]) await t.rejects(source({ timeoutMs: 50 }).fetch(url, {}), failed('crl-timeout'))
})

await t.test('too large, whatever it says of its length, and however it is packed', async t => {
  const long = await serving(t, (_request, response) => { response.end('x'.repeat(MAX + 1)) })
  const endless = await serving(t, (_request, response) => {
    const more = (): void => { if (!response.destroyed) response.write('x'.repeat(200), () => setImmediate(more)) }
    more()
  })
  const packed = await serving(t, (_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('x'.repeat(1_000_000)))
  })
  for (const { url } of [long, endless, packed]) await t.rejects(source().fetch(url, {}), failed('crl-too-large'))
})

await t.test('no redirect is followed, wherever to', async t => {
  const { url, requests } = await serving(t, ({ url = '' }, response) => {
    if (url.includes('else')) response.end('list')
    else response.writeHead(302, { location: '/elsewhere' }).end()
  })
  await t.rejects(source().fetch(url, {}), failed('crl-redirected'))
  t.equal(requests.length, 1)
})

await t.test('a refusal, an end in the middle, nobody there', async t => {
  for (const status of [404, 500, 204]) {
    const { url } = await serving(t, (_request, response) => { response.writeHead(status).end() })
    await t.rejects(source().fetch(url, {}), failed('crl-http-status'), String(status))
  }
  const cut = await serving(t, (_request, response) => { response.writeHead(200, { 'content-length': '100' }).write('x', () => response.destroy()) })
  await t.rejects(source().fetch(cut.url, {}), failed('crl-unreachable'))
  await t.rejects(source().fetch('http://127.0.0.1:1/', {}), failed('crl-unreachable'))
})

await t.test('a file of the folder, and then that it is the same', async t => {
  const dir = mkdtempSync(join(tmpdir(), 'crl-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const [file, files] = [join(dir, 'a.crl'), source({ dir })]
  writeFileSync(file, 'list')
  const fetched = await files.fetch('a.crl', {})
  t.equal(fetched?.bytes.toString(), 'list')
  t.equal(await files.fetch('a.crl', fetched?.validators ?? {}), undefined)
  writeFileSync(file, 'tsil')
  utimesSync(file, 1, 1)
  t.equal((await files.fetch('a.crl', fetched?.validators ?? {}))?.bytes.toString(), 'tsil')
  symlinkSync(file, join(dir, 'link.crl'))
  t.equal((await files.fetch('link.crl', {}))?.bytes.toString(), 'tsil', 'as mounted volumes have it')
  writeFileSync(file, 'x'.repeat(MAX + 1))
  await t.rejects(files.fetch('a.crl', {}), failed('crl-too-large'))
  mkdirSync(join(dir, 'folder'))
  for (const name of ['folder', 'missing.crl']) await t.rejects(files.fetch(name, {}), failed('crl-file-missing'), name)
  await t.rejects(source().fetch('a.crl', {}), failed('crl-folder-not-set'))
})
