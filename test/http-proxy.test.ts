// Proxies that the environment names: by `fetch` of the service, and by the command line.
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import t, { type Test } from 'tap'
import { getGlobalDispatcher, setGlobalDispatcher } from 'undici'
import { isProxied, proxyAgent } from '../src/http-proxy.ts'
import { cvm } from './cli/command.ts'
import { Authority } from './cli/openssl-authority.ts'
import { type ScriptedService, scriptedService } from './cli/scripted-service.ts'

const HOST = 'cvm.example'
const authority = new Authority(t, 'Root of cvm.example')
const answer = { status: 200, body: { devices: [] } }

/** A proxy that leads every name to one server, and remembers what it was asked for. */
async function startProxy (t: Test, { url }: ScriptedService) {
  const asked: string[] = []
  const proxy = createServer().on('connect', (request, socket) => {
    asked.push(request.url ?? '')
    const server = connect(Number(url.port), '127.0.0.1', () => { socket.write('HTTP/1.1 200 OK\r\n\r\n') })
    for (const [one, other] of [[socket, server], [server, socket]] as const) one.on('error', () => other.destroy()).pipe(other)
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  t.teardown(() => { proxy.close(); proxy.closeAllConnections() })
  return { asked, proxyUrl: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` }
}

function setEnv (t: Test, settings: Record<string, string>): void {
  for (const name of ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY', 'no_proxy', 'NO_PROXY']) {
    const { [name]: before } = process.env
    t.teardown(() => { if (before === undefined) delete process.env[name]; else process.env[name] = before })
    delete process.env[name]
  }
  Object.assign(process.env, settings)
}

await t.test('fetch goes through the proxy, but to this machine and to the hosts of NO_PROXY', async t => {
  const service = await scriptedService(t, [answer])
  const { asked, proxyUrl } = await startProxy(t, service)
  for (const name of ['HTTP_PROXY', 'http_proxy']) {
    setEnv(t, { [name]: proxyUrl, NO_PROXY: 'direct.invalid' })
    t.ok(isProxied())
    const before = getGlobalDispatcher()
    setGlobalDispatcher(proxyAgent())
    try {
      t.equal((await fetch(`http://${HOST}/keys`)).status, 200, name)
      t.equal((await fetch(new URL('/keys', service.url))).status, 200, 'localhost')
      await t.rejects(fetch('http://direct.invalid/keys'), 'a host of NO_PROXY is looked up here')
    } finally {
      await getGlobalDispatcher().close()
      setGlobalDispatcher(before)
    }
  }
  t.strictSame(asked, [`${HOST}:80`, `${HOST}:80`])
  setEnv(t, {})
  t.notOk(isProxied())
})

await t.test('cvm goes through the proxy, and checks the certificate of the service behind it', async t => {
  const service = await scriptedService(t, [answer], authority.issue(`/CN=${HOST}`, `subjectAltName=DNS:${HOST}`))
  const { asked, proxyUrl } = await startProxy(t, service)
  const folder = t.testdir({ 'ca.pem': authority.certificate })
  const list = (options: string[]) => cvm(['operator', 'list', '--json', '--url', `https://${HOST}`, ...options], {
    env: { HTTPS_PROXY: proxyUrl, CVM_API_KEY: 'cvm_key' }
  })
  t.match(await list(['--ca', `${folder}/ca.pem`]), { status: 0, stderr: '' })
  t.match(await list([]), { status: 1, stderr: 'not trusted' })
  t.strictSame(asked, [`${HOST}:443`, `${HOST}:443`])
})

await t.test('a host of NO_PROXY, and a proxy that is not there: exit code 4', async t => {
  const enroll = (out: string, env: Record<string, string>) => cvm(
    ['device', 'enroll', '--serial', 'SN-1', '--timeout', '1', '--out', out, '--url', 'https://device.invalid'],
    { env: { CVM_REGISTRATION_TOKEN: 'token', HTTPS_PROXY: 'http://127.0.0.1:1', ...env } })
  t.match(await enroll(`${t.testdir()}/one`, {}), { status: 4, stderr: 'ECONNREFUSED' })
  t.match(await enroll(`${t.testdir()}/two`, { NO_PROXY: '.invalid' }), { status: 4, stderr: /ENOTFOUND|EAI_AGAIN/ })
})
