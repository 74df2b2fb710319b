import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import { pino } from 'pino'
import { setGlobalDispatcher } from 'undici'
import { type App, type Surroundings, buildApp } from './app.ts'
import { type Config, ConfigError, readConfig } from './config.ts'
import { isProxied, proxyAgent } from './http-proxy.ts'
import type { LocalMode } from './local-mode.ts'
import { SetupError } from './observed/setup.ts'
import { productFaults } from './products.ts'

/** The process: configuration, local mode if asked, listeners, graceful close. Exit codes: 0 closed, 1 failed, 2 misconfigured. */
async function main (): Promise<void> {
  ensureHome()
  const config = readConfig(process.env, productFaults)
  const log = pino({ level: config.LOG_LEVEL })
  // For `fetch`, by which identity providers and CRLs are asked. AWS is reached directly, or through VPC endpoints.
  if (isProxied()) setGlobalDispatcher(proxyAgent())
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }

  const local = config.CVM_LOCAL ? await (await import('./local-mode.ts')).startLocalMode(config, log) : undefined
  const surroundings: Surroundings = { log, version, ...await tlsOf(config), ...local?.surroundings }
  const app = await buildApp({ ...config, ...local?.settings }, surroundings)
  closeOnSignals(app, config, local)
  await app.setup.start()

  // In this order: a balancer that /readyz tells of this task must find it.
  const serviceUrl = await listen(app.service, config.HOST, config.PORT, 'PORT')
  const opsUrl = await listen(app.ops, config.HOST, config.OPS_PORT, 'OPS_PORT')
  log.info({ serviceUrl, opsUrl, version }, 'listening')
  await local?.welcome(app, { serviceUrl, opsUrl })
}

/** The AWS SDK looks for its files in a home and ends the process where there is none; Docker gives such a user `/`, too. */
function ensureHome (): void {
  try {
    homedir()
  } catch {
    process.env['HOME'] = '/'
  }
}

function closeOnSignals (app: App, config: Config, local: LocalMode | undefined): void {
  const delay = config.DRAIN_DELAY_MS + config.SHUTDOWN_TIMEOUT_MS + 1_500
  closeWithGrace({ delay, logger: false }, async ({ err, signal }) => {
    if (err) process.exitCode = 1
    console.error(err ? `stopping after ${err.stack}` : `stopping on ${signal}`)
    await app.service.drain(config.DRAIN_DELAY_MS, config.SHUTDOWN_TIMEOUT_MS)
    await app.ops.close()
    app.release()
    await local?.close()
  })
}

async function listen (server: FastifyInstance, host: string, port: number, setting: string): Promise<string> {
  try {
    const url = new URL(await server.listen({ host, port }))
    if (['127.0.0.1', '[::1]'].includes(url.hostname)) url.hostname = 'localhost'
    return url.origin
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'EADDRNOTAVAIL') throw new ConfigError([`HOST ${host} is no address of this machine`])
    if (code !== 'EADDRINUSE') throw cause
    throw new ConfigError([`${setting} ${port} on ${host} is taken by another program: set ${setting} to a free port`])
  }
}

async function tlsOf ({ TLS_CERT_FILE, TLS_KEY_FILE, TLS_SELF_SIGNED }: Config): Promise<Pick<Surroundings, 'tls'>> {
  if (TLS_SELF_SIGNED) return { tls: await (await import('./x509/self-signed.ts')).makeServerCertificate(Date.now()) }
  return TLS_CERT_FILE ? { tls: { cert: readFileSync(TLS_CERT_FILE, 'utf8'), key: readFileSync(TLS_KEY_FILE, 'utf8') } } : {}
}

main().catch((cause: unknown) => {
  const isSettings = cause instanceof Error && (cause instanceof ConfigError || cause instanceof SetupError || 'setting' in cause)
  console.error(isSettings ? cause.message : cause)
  process.exit(isSettings ? 2 : 1)
})
