import t from 'tap'
import { postUntilAnswered, retryAfterMs } from '../../src/cli/back-off.ts'
import type { Patience } from '../../src/cli/back-off.ts'
import type { Failure } from '../../src/cli/failure.ts'
import { Authority } from './openssl-authority.ts'
import { problem, scriptedService } from './scripted-service.ts'

const done = { status: 201, body: { certificatePem: 'x' } }

/** Time that passes only by sleeping. */
function fakeTime (random = 0.5) {
  const waits: number[] = []
  let now = Date.parse('2026-11-20T12:00:00Z')
  const patience: Patience = { timeoutMs: 120_000, now: () => now, sleep: async ms => { waits.push(ms); now += ms }, random: () => random }
  return { waits, patience }
}

async function failure (attempt: Promise<unknown>): Promise<Failure> {
  return await attempt.then(() => { throw new Error('it succeeded') }, error => error as Failure)
}

await t.test('429 then 201: waits as told, jitter only on top, same bytes', async t => {
  const service = await scriptedService(t, [problem(429, 'rate-limited', { 'retry-after': '7' }), done])
  const { waits, patience } = fakeTime()
  const reply = await postUntilAnswered(service, 'v1/certificates', { b: 1, a: 'ä' }, patience)
  t.strictSame(reply, { status: 201, body: done.body })
  t.strictSame(waits, [7250])
  t.strictSame(service.bodies, ['{"b":1,"a":"ä"}', '{"b":1,"a":"ä"}'])
  t.strictSame(service.paths, ['POST /v1/certificates', 'POST /v1/certificates'])
})

await t.test('Retry-After as a date is read against the clock of the service', async t => {
  const headers = { 'retry-after': 'Thu, 01 Jan 1970 00:00:09 GMT', date: 'Thu, 01 Jan 1970 00:00:01 GMT' }
  t.equal(retryAfterMs({ headers }, Date.now()), 8000)
  t.equal(retryAfterMs({ headers: { 'retry-after': headers['retry-after'] } }, 4000), 5000)
  t.equal(retryAfterMs({ headers: { 'retry-after': headers['retry-after'] } }, 99_000), 0, 'a date that has passed')
  t.equal(retryAfterMs({ headers: { 'retry-after': 'soon' } }, 0), undefined)
  const service = await scriptedService(t, [problem(503, 'overloaded', headers), done])
  const { waits, patience } = fakeTime(0)
  await postUntilAnswered(service, 'v1/certificates', {}, patience)
  t.strictSame(waits, [8000])
})

await t.test('lost connections and half answers are tried again, exponentially with full jitter', async t => {
  const service = await scriptedService(t, ['reset', 'half an answer', 'reset', 'reset', 'reset', 'reset', 'reset', 'reset', done])
  const { waits, patience } = fakeTime(1)
  t.equal((await postUntilAnswered(service, 'v1/certificates', {}, patience)).status, 201)
  t.strictSame(waits, [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000])
  t.equal(new Set(service.bodies).size, 1)
})

await t.test('an answer that does not come in time is no answer', async t => {
  const service = await scriptedService(t, ['silence', done])
  const { patience } = fakeTime()
  t.equal((await postUntilAnswered(service, 'v1/certificates', {}, { ...patience, attemptMs: 200 })).status, 201)
})

await t.test('a CRL that can never be used is final; one that may come is waited for', async t => {
  const unavailable = (reason: string) => ({ status: 503, body: { code: 'crl-unavailable', reason, title: 'x', detail: 'd', remedy: 'r' }, headers: { 'retry-after': '10' } })
  for (const reason of ['crl-is-partial', 'crl-is-delta', 'crl-critical-extension', 'crl-signature-not-allowed', 'crl-not-set']) {
    const service = await scriptedService(t, [unavailable(reason), done])
    const { waits, patience } = fakeTime()
    t.match(await failure(postUntilAnswered(service, 'v1/certificates', {}, patience)), { exitCode: 3, problem: { code: 'crl-unavailable', reason } }, reason)
    t.strictSame(waits, [])
  }
  for (const reason of ['crl-unreachable', 'crl-stale', 'crl-not-pem']) {
    const service = await scriptedService(t, [unavailable(reason), done])
    t.equal((await postUntilAnswered(service, 'v1/certificates', {}, fakeTime().patience)).status, 201, reason)
  }
})

await t.test('what passes is tried again: each status', async t => {
  const later = [problem(408, 'request-timeout'), problem(409, 'vend-in-progress', { 'retry-after': '1' }), problem(500, 'internal-error'),
    { status: 502, body: 'from a balancer' }, problem(503, 'aws-iot-throttled'), { status: 504, body: '' }]
  const service = await scriptedService(t, [...later, done])
  t.equal((await postUntilAnswered(service, 'v1/certificates', {}, fakeTime().patience)).status, 201)
  t.equal(service.bodies.length, later.length + 1)
})

await t.test('a final refusal is not tried again and is told in full', async t => {
  for (const said of [problem(401, 'device-not-authorized'), problem(409, 'already-vended'), problem(400, 'csr-rejected'), problem(502, 'aws-iot-refused')]) {
    const service = await scriptedService(t, [said])
    const { exitCode, problem: told } = await failure(postUntilAnswered(service, 'v1/certificates', {}, fakeTime().patience))
    const { code } = said.body as { code: string }
    t.equal(exitCode, 3, code)
    t.strictSame(told, { code, detail: `Detail of ${code}`, remedy: 'Do something.', requestId: 'req-1' })
    t.equal(service.bodies.length, 1)
  }
})

await t.test('the deadline: no wait that would end after it, exit code 4', async t => {
  const limited = await scriptedService(t, [problem(429, 'rate-limited', { 'retry-after': '3600' })])
  const time = fakeTime()
  const refusal = await failure(postUntilAnswered(limited, 'v1/certificates', {}, time.patience))
  t.equal(refusal.exitCode, 4)
  t.match(refusal.message, 'come back in 3600 s')
  t.equal(refusal.problem.code, 'rate-limited')
  t.strictSame(time.waits, [])

  const broken = await scriptedService(t, ['reset'])
  const always = fakeTime(1)
  t.equal((await failure(postUntilAnswered(broken, 'v1/certificates', {}, always.patience))).exitCode, 4)
  t.ok(always.waits.reduce((sum, ms) => sum + ms, 0) < 120_000)

  const nobody = { url: new URL('http://127.0.0.1:1/') }
  t.equal((await failure(postUntilAnswered(nobody, 'v1/certificates', {}, fakeTime(1).patience))).exitCode, 4)
})

await t.test('what is no CVM is told at once, exit code 1', async t => {
  const cases = { oversize: JSON.stringify({ padding: 'x'.repeat(5_000_000) }), 'no JSON': '<html>', 'no object': '[]' }
  for (const [name, body] of Object.entries(cases)) {
    const service = await scriptedService(t, [{ status: 201, body }])
    t.equal((await failure(postUntilAnswered(service, 'v1/certificates', {}, fakeTime().patience))).exitCode, 1, name)
    t.equal(service.bodies.length, 1, name)
  }
  const elsewhere = await scriptedService(t, [{ status: 302, headers: { location: 'https://evil.example/' }, body: '' }])
  t.equal((await failure(postUntilAnswered(elsewhere, 'v1/certificates', {}, fakeTime().patience))).exitCode, 1, 'redirects are not followed')
  const plain = await scriptedService(t, [done])
  const asTls = { url: new URL(plain.url.href.replace('http:', 'https:')) }
  t.equal((await failure(postUntilAnswered(asTls, 'v1/certificates', {}, fakeTime().patience))).exitCode, 1, 'https to an http port')
})

await t.test('https: the named authority is trusted, no other', async t => {
  const authority = new Authority(t, 'Right')
  const { url, bodies } = await scriptedService(t, [done], authority.issueServer())
  t.equal((await postUntilAnswered({ url, ca: authority.certificate }, 'v1/certificates', {}, fakeTime().patience)).status, 201)
  for (const service of [{ url }, { url, ca: new Authority(t, 'Wrong').certificate }]) {
    const refusal = await failure(postUntilAnswered(service, 'v1/certificates', {}, fakeTime().patience))
    t.equal(refusal.exitCode, 1)
    t.match(refusal.problem.remedy, '--ca')
  }
  t.equal(bodies.length, 1, 'the token was not sent to a stranger')
})
