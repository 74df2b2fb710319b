// The contract of the port `DriftFindings`, over every implementation: DynamoDB on each engine there is here, and the model.
import { randomUUID } from 'node:crypto'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t, { type Test } from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbDriftFindings } from '../../src/adapters/dynamodb-drift-findings.ts'
import { DynamoDbUnfinishedDevices } from '../../src/adapters/dynamodb-unfinished-devices.ts'
import type { Difference, DriftFindings, Finding, SweepPosition } from '../../src/vending/drift-findings.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { ModelDriftFindings } from '../fixtures/model-drift-findings.ts'

const NOW = 1_700_000_000_000
const BY = { at: NOW + 1, actor: 'ada', reason: 'ticket 7' }
const POSITION: SweepPosition = { revision: 0, pass: 1, startedAt: NOW, previousStartedAt: 0, phase: 'certificates', looked: 0 }

await t.test('model', async t => contract(t, new ModelDriftFindings()))

for (const engine of ENGINES) {
  await t.test(engine.name, async t => {
    const { url, close } = await engine.start()
    const client = clientOf(url)
    const table = `drift-${randomUUID()}`
    t.teardown(async () => { client.destroy(); await close() })
    await ensureDeviceTable(client, table)
    const documents = DynamoDBDocumentClient.from(client)
    const findings = new DynamoDbDriftFindings(documents, table)
    await contract(t, findings)

    await t.test('findings are in no list of devices', async t => {
      const devices = new DynamoDbUnfinishedDevices(documents, table)
      await findings.report(difference(), NOW)
      t.same(await devices.list(NOW * 2, 500), [])
      t.same(await devices.quarantined(500), { faults: [], readable: [] })
    })
  })
}

function difference (changes: Partial<Difference> = {}): Difference {
  return { serialNumber: randomUUID(), kind: 'status-differs', product: 'default', certificateId: 'c1', registry: 'ACTIVE', aws: 'INACTIVE', ...changes }
}

async function allOf (findings: DriftFindings, isAccepted: boolean, limit = 500): Promise<Finding[]> {
  const all: Finding[] = []
  for (let cursor: string | undefined; ;) {
    const page = await findings.list(isAccepted, limit, cursor)
    all.push(...page.findings)
    cursor = page.nextCursor
    if (cursor === undefined) return all
  }
}

async function contract (t: Test, findings: DriftFindings): Promise<void> {
  const isListed = async ({ serialNumber }: Difference, isAccepted = false) =>
    (await allOf(findings, isAccepted)).some(finding => finding.serialNumber === serialNumber)

  await t.test('a finding stays, from when it was first seen, until it ends', async t => {
    const seen = difference()
    const before = await findings.count()
    t.same(await findings.of(seen.serialNumber), [])
    t.equal(await findings.report(seen, NOW), 'new')
    t.equal(await findings.report(seen, NOW + 5), 'known')
    t.same(await findings.of(seen.serialNumber), [{ ...seen, foundAt: NOW }])
    t.ok(await isListed(seen))
    t.equal((await findings.count())['status-differs'], before['status-differs'] + 1)
    t.ok(await findings.end(seen.serialNumber, 'status-differs', NOW + 6))
    t.notOk(await findings.end(seen.serialNumber, 'status-differs', NOW + 6), 'once')
    t.same(await findings.of(seen.serialNumber), [])
    t.notOk(await isListed(seen))
    t.same(await findings.count(), before)
    t.equal(await findings.report(seen, NOW + 7), 'new', 'and may come again')
  })

  await t.test('kinds stand beside each other, each with the certificate that it is about', async t => {
    const seen = difference()
    const { certificateId, ...other } = difference({ serialNumber: seen.serialNumber, kind: 'policy-detached' })
    const before = await findings.count()
    await findings.report(seen, NOW)
    await findings.report(other, NOW)
    const byKind = ({ kind: a }: Finding, { kind: b }: Finding) => a < b ? -1 : 1
    t.same((await findings.of(seen.serialNumber)).sort(byKind), [{ ...other, foundAt: NOW }, { ...seen, foundAt: NOW }])
    t.equal((await findings.count())['policy-detached'], before['policy-detached'] + 1)
    await findings.end(seen.serialNumber, 'status-differs', NOW)
    t.same((await findings.of(seen.serialNumber)).map(({ kind }) => kind), ['policy-detached'])
  })

  await t.test('an accepted finding is open no more, and comes back when it changes', async t => {
    const seen = difference()
    await findings.report(seen, NOW)
    const before = await findings.count()
    const [finding] = await findings.of(seen.serialNumber)
    t.notOk(await findings.accept({ ...finding as Finding, aws: 'REVOKED' }, BY), 'only as it was seen')
    t.ok(await findings.accept(finding as Finding, BY))
    t.ok(await findings.accept(finding as Finding, BY), 'again')
    t.equal((await findings.count())['status-differs'], before['status-differs'] - 1)
    t.same(await findings.of(seen.serialNumber), [{ ...seen, foundAt: NOW, accepted: BY }])
    t.same([await isListed(seen), await isListed(seen, true)], [false, true])
    t.equal(await findings.report(seen, NOW + 1), 'known')
    for (const [n, change] of [{ aws: 'REVOKED' }, { registry: 'DISABLED' }, { certificateId: 'c2' }].entries()) {
      const changed = { ...seen, ...change }
      t.equal(await findings.report(changed, NOW + 2 + n), 'changed')
      t.same(await findings.of(seen.serialNumber), [{ ...changed, foundAt: NOW + 2 + n }])
      t.same([await isListed(seen), await isListed(seen, true)], [true, false])
      t.ok(await findings.accept({ ...changed, foundAt: NOW }, BY))
      await findings.report(seen, NOW)
      t.ok(await findings.accept({ ...seen, foundAt: NOW }, BY))
    }
    t.ok(await findings.end(seen.serialNumber, 'status-differs', NOW))
    t.notOk(await findings.accept(finding as Finding, BY), 'what has ended')
    await findings.report(seen, NOW)
    t.ok(await isListed(seen), 'what comes again is not accepted')
  })

  await t.test('list: in pages, the oldest first', async t => {
    const seen = [3, 1, 2].map(n => ({ n, difference: difference() }))
    for (const { n, difference } of seen) await findings.report(difference, n)
    const own = (await allOf(findings, false, 1)).filter(({ foundAt }) => foundAt < 10)
    t.same(own.map(({ foundAt }) => foundAt), [1, 2, 3])
    await t.rejects(findings.list(false, 1, 'nonsense'), { code: 'invalid-request' })
  })

  await t.test('position: moves on from where it was seen, once', async t => {
    t.equal(await findings.position(), undefined)
    const first = await findings.move(POSITION)
    t.same(first, { ...POSITION, revision: 1 })
    t.equal(await findings.move(POSITION), undefined, 'another began')
    t.same(await findings.position(), first)
    const further = { ...first as SweepPosition, phase: 'rest' as const, cursor: 'c', endedAt: NOW, durationMs: 7 }
    const both = await Promise.all([findings.move(further), findings.move(further)])
    t.equal(both.filter(Boolean).length, 1)
    t.same(await findings.position(), { ...further, revision: 2 })
  })
}
