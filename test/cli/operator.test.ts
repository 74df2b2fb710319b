import t from 'tap'
import { cvm } from './command.ts'
import { problem, scriptedService } from './scripted-service.ts'
import type { Line, ScriptedService } from './scripted-service.ts'

t.setTimeout(900_000)

const KEY = 'cvm_not-to-be-seen'
const ID = 'ab12'.repeat(16)
const HISTORY = [
  { at: '2026-11-20T12:00:00.000Z', event: 'registered', requestId: 'req-1', actor: 'ada' },
  { at: '2026-11-21T12:00:00.000Z', event: 'revoked', requestId: 'req-2', certificateId: ID, actor: 'ada', reason: 'sto\u001b[31mlen' }
]
const DEVICE = {
  serialNumber: 'sn-1',
  product: 'pump',
  thingName: 'sn-1',
  state: 'REVOKED',
  certificateId: ID,
  certificateArn: `arn:aws:iot:eu-west-1:1:cert/${ID}`,
  notAfter: '2049-12-31T23:59:59.000Z',
  retiring: [],
  history: HISTORY
}

const ask = (service: ScriptedService, ...args: string[]) => cvm(['operator', ...args, '--url', service.url.href], { env: { CVM_API_KEY: KEY } })

/** A list of so many devices, page after page. */
function listing (total: number): Line[] {
  return Array.from({ length: Math.ceil(total / 500) }, (_, page) => {
    const devices = Array.from({ length: Math.min(500, total - page * 500) }, (_, index) =>
      ({ serialNumber: `sn-${page * 500 + index}`, product: 'default', state: 'REGISTERED' }))
    return { status: 200, body: { devices, ...(page + 1) * 500 < total && { nextCursor: `after page ${page}` } } }
  })
}

await t.test('list: the filters, a table, and that there is more', async t => {
  const service = await scriptedService(t, [{ status: 200, body: { devices: [DEVICE, { ...DEVICE, serialNumber: 'sn-22' }], nextCursor: 'x' } }])
  const { status, stdout, stderr } = await ask(service, 'list', '--state', 'REVOKED', '--product', 'pump', '--limit', '2')
  t.equal(status, 0)
  t.strictSame(service.paths, ['GET /v1/devices?limit=2&state=REVOKED&product=pump'])
  t.equal(service.headers[0]?.authorization, `Bearer ${KEY}`)
  t.equal(stdout, [
    `SERIAL NUMBER  PRODUCT  STATE    ${'CERTIFICATE'.padEnd(64)}  NOT AFTER`,
    `sn-1           pump     REVOKED  ${ID}  2049-12-31T23:59:59.000Z`,
    `sn-22          pump     REVOKED  ${ID}  2049-12-31T23:59:59.000Z`, ''
  ].join('\n'))
  t.equal(stderr, '2 devices shown; there are more: --all shows them\n')
})

await t.test('list --all and a long --limit: page after page by the cursor', async t => {
  const all = await scriptedService(t, listing(1200))
  const { stdout, stderr } = await ask(all, 'list', '--all', '--json')
  t.strictSame(stdout.trim().split('\n').map(line => JSON.parse(line).serialNumber), Array.from({ length: 1200 }, (_, index) => `sn-${index}`))
  t.equal(stderr, '')
  t.strictSame(all.paths, ['', '&cursor=after+page+0', '&cursor=after+page+1'].map(cursor => `GET /v1/devices?limit=500${cursor}`))
  const some = await scriptedService(t, listing(1200))
  await ask(some, 'list', '--limit', '700')
  t.strictSame(some.paths, ['GET /v1/devices?limit=500', 'GET /v1/devices?limit=200&cursor=after+page+0'])
})

await t.test('show and audit: what it is, and its story', async t => {
  const service = await scriptedService(t, [{ status: 200, headers: { etag: '"7"' }, body: DEVICE }])
  const shown = await ask(service, 'show', 'sn-1')
  t.match(shown.stdout, /^serial number {4}sn-1\nproduct {10}pump\nstate {12}REVOKED\nrevision {9}7\n/)
  t.match(shown.stdout, /\n\nWHEN {22}EVENT {7}WHO {2}REQUEST {2}CERTIFICATE {55}REASON\n/)
  const story = await ask(service, 'audit', 'sn-1')
  t.equal(story.stdout.split('\n')[2], `2026-11-21T12:00:00.000Z  revoked     ada  req-2    ${ID}  sto [31mlen`)
  t.ok(shown.stdout.endsWith(story.stdout))
  t.strictSame(JSON.parse((await ask(service, 'show', 'sn-1', '--json')).stdout), { ...DEVICE, revision: 7 })
  t.strictSame((await ask(service, 'audit', 'sn-1', '--json')).stdout.trim().split('\n').map(line => JSON.parse(line)), HISTORY)
  t.strictSame([...new Set(service.paths)], ['GET /v1/devices/sn-1'])
})

await t.test('certificate: whose it is', async t => {
  const pem = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'
  const { history, retiring, ...found } = { ...DEVICE, certificatePem: pem, issuedAt: '2026-11-20T12:00:00.000Z' }
  const service = await scriptedService(t, [{ status: 200, body: found }, { status: 200, body: found }, problem(404, 'certificate-not-found')])
  const { stdout } = await ask(service, 'certificate', ID)
  t.match(stdout, /^serial number {4}sn-1$/m)
  t.ok(stdout.endsWith(`\n\n${pem}`))
  t.strictSame(JSON.parse((await ask(service, 'certificate', ID, '--json')).stdout), found)
  t.match(await ask(service, 'certificate', 'nonsense/..'), { status: 3, stderr: 'certificate-not-found' })
  t.equal(service.paths.at(-1), 'GET /v1/certificates/nonsense%2F..')
})

await t.test('--key-compromised: of revoke alone', async t => {
  const service = await scriptedService(t, [{ status: 200, body: DEVICE }])
  t.match(await ask(service, 'revoke', 'sn-1', '--reason', 'leaked', '--key-compromised'), { status: 0, stdout: 'sn-1 is REVOKED\n' })
  t.strictSame(service.bodies, ['{"reason":"leaked","keyCompromised":true}'])
  t.match(await ask(service, 'reset', 'sn-1', '--reason', 'leaked', '--key-compromised'), { status: 2 })
  t.equal(service.paths.length, 1)
})

await t.test('--if-match: on the condition that nothing has changed', async t => {
  const service = await scriptedService(t, [{ status: 200, body: DEVICE }, { status: 200, body: DEVICE }, problem(412, 'precondition-failed')])
  t.match(await ask(service, 'revoke', 'sn-1', '--reason', 'stolen', '--if-match', '7'), { status: 0, stdout: 'sn-1 is REVOKED\n' })
  await ask(service, 'revoke', 'sn-1', '--reason', 'stolen')
  t.match(await ask(service, 'reset', 'sn-1', '--reason', 'found', '--if-match', '"8"'), { status: 3, stderr: 'precondition-failed' })
  t.strictSame(service.headers.map(headers => headers['if-match']), ['"7"', undefined, '"8"'])
  t.equal(service.bodies[0], '{"reason":"stolen"}')
})

await t.test('list --drifted and accept-drift: in what they differ, and why that is accepted', async t => {
  const finding = { serialNumber: 'sn-1', kind: 'status-differs', product: 'pump', certificateId: ID, registry: 'ACTIVE', awsIot: 'INACTIVE', foundAt: '2026-11-20T12:00:00.000Z' }
  const accepted = { ...finding, accepted: { at: '2026-11-21T12:00:00.000Z', actor: 'ada', reason: 'paused' } }
  const service = await scriptedService(t, [{ status: 200, body: { devices: [finding, accepted] } }])
  const { status, stdout } = await ask(service, 'list', '--drifted')
  t.equal(status, 0)
  t.equal(stdout, [
    `SERIAL NUMBER  KIND            REGISTRY  AWS IOT   ${'CERTIFICATE'.padEnd(64)}  SINCE                     ACCEPTED`,
    `sn-1           status-differs  ACTIVE    INACTIVE  ${ID}  2026-11-20T12:00:00.000Z`,
    `sn-1           status-differs  ACTIVE    INACTIVE  ${ID}  2026-11-20T12:00:00.000Z  ada: paused`, ''
  ].join('\n'))
  await ask(service, 'list', '--drifted', '--accepted', '--json')
  t.strictSame(service.paths, ['GET /v1/drifted-devices?limit=100', 'GET /v1/drifted-devices?limit=100&accepted=true'])
  t.match(await ask(service, 'list', '--drifted', '--state', 'ACTIVE'), { status: 2, stderr: '--drifted goes with neither' })
  t.match(await ask(service, 'list', '--accepted'), { status: 2, stderr: '--accepted needs --drifted' })

  const accepting = await scriptedService(t, [{ status: 200, body: { serialNumber: 'sn-1', drift: [accepted] } }])
  t.match(await ask(accepting, 'accept-drift', 'sn-1', '--kind', 'status-differs', '--reason', 'paused'), {
    status: 0, stdout: 'accepted: status-differs: the registry says ACTIVE, AWS IoT says INACTIVE\n'
  })
  t.strictSame(accepting.paths, ['POST /v1/devices/sn-1/accept-drift'])
  t.strictSame(accepting.bodies, ['{"kind":"status-differs","reason":"paused"}'])
  t.match(await ask(accepting, 'reconcile', '--sweep', '--dry-run'), { status: 2, stderr: '--sweep goes without --dry-run' })
  const shown = await scriptedService(t, [{ status: 200, body: { ...DEVICE, drift: [finding] } }])
  t.match((await ask(shown, 'show', 'sn-1')).stdout, 'sn-1           status-differs  ACTIVE    INACTIVE')
})

await t.test('register: the token made here is printed once, and sent again after a lost answer', async t => {
  const registered = (request: Record<string, string>) => {
    const { registrationToken, ...device } = request
    return { status: 201, body: { ...device, product: 'pump', state: 'REGISTERED' } }
  }
  const service = await scriptedService(t, ['reset', registered])
  const { status, stdout, stderr } = await ask(service, 'register', 'sn-1', '--product', 'pump', '--expires', '2030-01-31')
  t.equal(status, 0)
  const [first, second] = service.bodies
  t.equal(first, second, 'the same bytes')
  const { registrationToken, ...device } = JSON.parse(first!)
  t.match(registrationToken, /^[\w-]{43}$/)
  t.strictSame(device, { serialNumber: 'sn-1', product: 'pump', tokenExpiresAt: '2030-01-31T00:00:00.000Z' })
  t.equal(stdout.split(registrationToken).length, 2)
  t.match(stdout, 'sn-1 is REGISTERED\n')
  t.notMatch(stderr, registrationToken)

  const file = `${t.testdir({ token: 'a-token-of-the-factory\n' })}/token`
  const given = await scriptedService(t, [registered])
  const quiet = await ask(given, 'register', 'sn-2', '--token-file', file)
  t.equal(JSON.parse(given.bodies[0]!).registrationToken, 'a-token-of-the-factory')
  t.notMatch(quiet.stdout + quiet.stderr, 'a-token-of-the-factory')
  t.match(JSON.parse((await ask(given, 'register', 'sn-3', '--json')).stdout), { serialNumber: 'sn-3', registrationToken: /^[\w-]{43}$/ })
})

await t.test('shadow: shown as it is, set from a file or standard input, on the condition of a version', async t => {
  const document = { state: { desired: { interval: 60 }, reported: { interval: 30 } }, metadata: {}, version: 8, timestamp: 1 }
  const service = await scriptedService(t, [{ status: 200, body: document }])
  t.strictSame(JSON.parse((await ask(service, 'shadow', 'sn-1')).stdout), document)
  const dir = t.testdir({ 'wanted.json': '{"interval":60,"old":null}', 'list.json': '["not-to-be-quoted"]', 'broken.json': '{"not-to-be-quoted"' })
  t.equal((await ask(service, 'shadow', 'sn-1', '--name', 'a&b', '--set', `${dir}/wanted.json`, '--if-version', '0')).status, 0)
  const fromInput = await cvm(['operator', 'shadow', 'sn-1', '--set', '-', '--url', service.url.href], { env: { CVM_API_KEY: KEY }, input: 'null' })
  t.equal(fromInput.status, 0)
  t.strictSame(service.paths, ['GET /v1/devices/sn-1/shadow', 'PUT /v1/devices/sn-1/shadow?name=a%26b', 'PUT /v1/devices/sn-1/shadow'])
  t.strictSame(service.bodies, ['', '{"desired":{"interval":60,"old":null},"version":0}', '{"desired":null}'])

  for (const file of ['list.json', 'broken.json']) {
    const { status, stderr } = await ask(service, 'shadow', 'sn-1', '--set', `${dir}/${file}`)
    t.equal(status, 2, file)
    t.match(stderr, 'is not a JSON object')
    t.notMatch(stderr, 'not-to-be-quoted')
  }
  t.match(await ask(service, 'shadow', 'sn-1', '--if-version', '7'), { status: 2, stderr: '--set' })
  t.match(await ask(service, 'shadow', 'sn-1', '--set', `${dir}/wanted.json`, '--if-version', '-1'), { status: 2, stderr: 'from 0 to' })
  t.equal(service.paths.length, 3, 'nothing was sent for those')
  const refusing = await scriptedService(t, [problem(409, 'shadow-conflict')])
  t.match(await ask(refusing, 'shadow', 'sn-1', '--set', `${dir}/wanted.json`, '--if-version', '7'), { status: 3, stderr: 'shadow-conflict' })
})
