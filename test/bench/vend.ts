// What a vend costs the service's own code, beside what signing the same CSR costs cfssl: over HTTP, on the same core, one after the other.
import { X509Certificate, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Child, forked, freePort, has, launched, pin } from './children.ts'
import { type Result, type Size, cpuMsOf, crowd, paired, resultOf } from './harness.ts'
import { type Material, clientOf, material, mustBe, vendBody } from './service.ts'

const AT_ONCE = 4
const DEADLINE_MS = 20_000
const KEYS = [['P-256', 1.15, ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']], ['RSA-2048', 0.95, ['rsa:2048']]] as const

interface Peer { readonly pid: number, readonly send: () => Promise<void>, readonly stop: () => Promise<void> }

export async function vends ({ rounds, scale }: Size): Promise<Result[]> {
  if (!has('cfssl') || !has('taskset')) {
    console.log('left out, because cfssl (Debian: golang-cfssl) or taskset is not installed: CPU of a vend')
    return []
  }
  const results: Result[] = []
  for (const [name, atMost, keyArgs] of KEYS) {
    const made = material(keyArgs, '/CN=sn-1')
    const [cfssl, service] = [await startCfssl(made), await startService(made)]
    const cost = ({ pid, send }: Peer) => async () => {
      const before = cpuMsOf(pid)
      await crowd(AT_ONCE, Math.ceil(2_000 * scale), send)
      // Linux counts hundredths of a second: a smoke run may see none.
      return Math.max(1, cpuMsOf(pid) - before)
    }
    const goal = { what: `CPU of a vend without the SDK, ${name}`, against: 'cfssl serve, sign', atMost }
    // For V8, which compiles what has run often.
    await cost(service)()
    results.push(await paired(goal, rounds, cost(service), cost(cfssl)))
    await Promise.all([cfssl.stop(), service.stop()])
  }
  return results
}

/** Bytes that a vend of the service's own code allocates: how much the heap grows while V8 has no reason to collect. */
export async function allocations ({ rounds, scale }: Size): Promise<Result[]> {
  const made = material(undefined, '/CN=sn-1')
  const service = await startService(made, ['--expose-gc', '--min-semi-space-size=256', '--max-semi-space-size=256'])
  const times = Math.ceil(200 * scale)
  await crowd(AT_ONCE, Math.ceil(2_000 * scale), service.send)
  const kilobytes: number[] = []
  for (let round = 0; round < rounds; round++) {
    const before = await service.heapUsed()
    for (let n = 0; n < times; n++) await service.send()
    kilobytes.push((await service.heapUsed(false) - before) / times / 1024)
  }
  await service.stop()
  return [resultOf({ what: 'allocated by a vend without the SDK', against: '' }, kilobytes, { unit: 'KB' })]
}

async function startService ({ csr, certificatePem }: Material, execArgv: readonly string[] = []) {
  const device = { serialNumber: 'sn-1', registrationToken: randomBytes(32).toString('base64url'), certificatePem }
  const child = await forked<string>('no-aws.ts', [JSON.stringify([device])], { execArgv: [...process.execArgv, ...execArgv] })
  const body = vendBody(device.serialNumber, csr, device.registrationToken)
  const made = await peer(child, child.first, '/v1/certificates', body, 201, answer => (JSON.parse(answer) as { certificatePem: string }).certificatePem)
  const heapUsed = (collect = true) => new Promise<number>(resolve => {
    child.process.once('message', message => resolve(message as number))
    child.process.send(collect ? 'collect' : 'look')
  })
  return { ...made, heapUsed }
}

async function startCfssl ({ folder, csr }: Material): Promise<Peer> {
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ signing: { default: { expiry: '8760h', usages: ['digital signature', 'client auth'] } } }))
  const port = await freePort()
  const args = ['serve', '-address', '127.0.0.1', '-port', String(port), '-ca', 'ca.pem', '-ca-key', 'ca.key', '-config', 'config.json', '-loglevel', '4']
  const child = launched('cfssl', args, { cwd: folder, env: { GOMAXPROCS: '1' } })
  const url = `http://127.0.0.1:${port}`
  for (const deadline = Date.now() + DEADLINE_MS; ;) {
    const answer = await fetch(`${url}/api/v1/cfssl/info`, { method: 'POST', body: '{}' }).catch(() => undefined)
    if (answer) break
    if (Date.now() > deadline) throw new Error('cfssl serve does not answer')
    await delay(50)
  }
  const body = JSON.stringify({ certificate_request: csr, hosts: ['sn-1'] })
  return peer(child, url, '/api/v1/cfssl/sign', body, 200, answer => (JSON.parse(answer) as { result: { certificate: string } }).result.certificate)
}

async function peer (
  { pid, stop }: Child, url: string, path: string, body: string, status: number, certificateIn: (answer: string) => string
): Promise<Peer> {
  pin(pid, 0)
  const client = clientOf(url, AT_ONCE, path)
  const first = await client.post(body)
  // What is compared is the same work only if there is a certificate in the end.
  mustBe(status, first)
  if (!new X509Certificate(certificateIn(first.text)).subject.includes('sn-1')) throw new Error(`${path} gave no certificate of the device`)
  return {
    pid,
    async send () { mustBe(status, await client.post(body)) },
    async stop () {
      await client.close()
      await stop()
    }
  }
}
