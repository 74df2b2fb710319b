// Replicas of the built service as production runs them, each behind proxies of its own to one local AWS and one DynamoDB.
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { DYNAMODB_LOCAL_URL } from '../fixtures/dynamodb-local.ts'
import { type Decider, startAwsProxy } from './aws-proxy.ts'
import { SERVER } from './processes.ts'
import { type Engine, type LocalAws, startLocalAws, startProduction } from './service-process.ts'

export interface Replica {
  readonly name: string
  readonly url: () => string
  readonly opsUrl: () => string
  readonly pid: () => number
  /** SIGKILL; resolves once it is dead. */
  readonly kill: () => Promise<void>
  /** Starts it anew, on another port. */
  readonly start: () => Promise<void>
}

export interface Fleet {
  readonly aws: LocalAws
  readonly replicas: readonly Replica[]
  /** The API key of an operator. */
  readonly operatorKey: string
  /** The API key of a manufacturing line. */
  readonly lineKey: string
  /** A route for operators, asked of the last replica or of this one. */
  readonly ask: (path: string, body?: object, of?: Replica) => Promise<unknown>
}

/** DynamoDB Local where there is one, because it is Amazon's own; else dynalite. */
export const BEST_ENGINE: Engine = DYNAMODB_LOCAL_URL ? { name: 'DynamoDB Local', url: DYNAMODB_LOCAL_URL } : { name: 'dynalite' }

/** Times small enough for a test. */
const TIMES = { CLAIM_LIFETIME_MS: 4_000, VEND_DEADLINE_MS: 3_500, RECONCILE_INTERVAL_MS: 1_000, AWS_CALL_TIMEOUT_MS: 2_000 }

/** Times in proportion to how long as many clean vends at once took as a test makes: short on a quick machine, enough on a busy one. */
export function timesFor (crowdMs: number): Record<keyof typeof TIMES, string> {
  const deadlineMs = Math.min(20_000, Math.max(1_200, 4 * crowdMs))
  return {
    CLAIM_LIFETIME_MS: String(deadlineMs + 200),
    VEND_DEADLINE_MS: String(deadlineMs),
    RECONCILE_INTERVAL_MS: '500',
    AWS_CALL_TIMEOUT_MS: String(Math.ceil(deadlineMs / 2))
  }
}

/** How long to wait for what must come, also on a machine that does much else. */
export const CURED_WITHIN_MS = 120_000
export const CLEAN_WITHIN_MS = 120_000

/** Only those limits are lifted that would turn a test's requests away. */
const ADMIT_ALL = { MAX_IN_FLIGHT_ADDRESS: '512', RATE_LIMIT_ADDRESS_MAX: '1000000', RATE_LIMIT_SERIAL_MAX: '1000000', MAX_EVENT_LOOP_DELAY_MS: '60000' }

/**
 * `servers`: how many replicas, or the program of each, where they are not all of this version.
 * `each`: what the environment of a replica has beside.
 */
export async function startFleet (
  t: Test, servers: number | readonly string[], decider: Decider, env: Record<string, string> = {}, awsEnv: Record<string, string> = {},
  each: readonly Record<string, string>[] = []
): Promise<Fleet> {
  const aws = await startLocalAws(t, BEST_ENGINE, awsEnv)
  const [key, lineKey] = [randomBytes(24).toString('base64url'), randomBytes(24).toString('base64url')]
  const settings = {
    ...Object.fromEntries(Object.entries(TIMES).map(([name, ms]) => [name, String(ms)])),
    ...ADMIT_ALL,
    TOKEN_PEPPER: randomBytes(32).toString('base64'),
    API_KEYS: `${apiKey('operator', key)},${apiKey('line', lineKey)}`,
    ...env
  }
  const programs = typeof servers === 'number' ? Array.from({ length: servers }, () => SERVER) : servers
  const replicas = await Promise.all(programs.map((program, n) => startReplica(t, `replica-${n}`, aws, decider, { ...settings, ...each[n] }, program)))
  return {
    aws,
    replicas,
    operatorKey: key,
    lineKey,
    async ask (path, body, of = replicas.at(-1)!) {
      const headers = { authorization: `Bearer ${key}`, ...body && { 'content-type': 'application/json' } }
      const response = await fetch(of.url() + path, { headers, ...body && { method: 'POST', body: JSON.stringify(body) } })
      if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
      return await response.json()
    }
  }
}

/** An entry of `API_KEYS`. */
export function apiKey (role: string, key: string): string {
  return `${role}:${role}:${createHash('sha256').update(key).digest('hex')}`
}

async function startReplica (
  t: Test, name: string, aws: LocalAws, decider: Decider, env: Record<string, string>, program: string
): Promise<Replica> {
  const dynamodbUrl = await startAwsProxy(t, aws.dynamodbUrl, name, decider)
  const iotUrl = await startAwsProxy(t, aws.iotUrl, name, decider)
  const behind = { ...aws, dynamodbUrl, iotUrl }
  let running = await startProduction(t, behind, env, program)
  // Listens on IPv4 only; asking for `localhost` would try IPv6 first each time.
  const plain = (url: string) => url.replace('localhost', '127.0.0.1')
  return {
    name,
    url: () => plain(running.serviceUrl),
    opsUrl: () => plain(running.opsUrl),
    pid: () => running.pid,
    async kill () {
      running.signal('SIGKILL')
      await running.ended
    },
    async start () {
      running = await startProduction(t, behind, env, program)
    }
  }
}

/**
 * Waits until AWS IoT holds these certificates, ACTIVE, and no other: each that crashes left has been deleted. What is wrong when that
 * does not come, and how long it took.
 */
export async function holdsOnly (fleet: Fleet, wanted: ReadonlySet<string>, withinMs: number): Promise<{ faults: string[], ms: number }> {
  const began = Date.now()
  for (;;) {
    const held = await fleet.aws.certificates()
    const faults = held.filter(({ certificateId = '', status }) => !wanted.has(certificateId) || status !== 'ACTIVE')
      .map(({ certificateId = '', status }) => `${status} ${certificateId}${wanted.has(certificateId) ? '' : ', which no device has'}`)
    const ids = new Set(held.map(({ certificateId }) => certificateId))
    faults.push(...[...wanted].filter(id => !ids.has(id)).map(id => `${id} is gone`))
    const ms = Date.now() - began
    if (faults.length === 0 || ms > withinMs) return { faults, ms }
    await delay(100)
  }
}

interface Report { readonly actions: readonly object[], readonly backlog: number, readonly drift: number }

/** What reconcile would still do, once it has had its time. */
export async function unfinished (fleet: Fleet, withinMs: number): Promise<Report> {
  for (const deadline = Date.now() + withinMs; ;) {
    const { actions, backlog, drift } = await fleet.ask('/v1/reconcile', { dryRun: true }) as Report
    if (Date.now() > deadline || (actions.length === 0 && backlog === 0 && drift === 0)) return { actions, backlog, drift }
    await delay(200)
  }
}
