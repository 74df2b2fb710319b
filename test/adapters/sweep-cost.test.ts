// What a pass of the sweep for drift costs, in calls and request units as they are counted here, for the README's table of 100,000 devices.
// To renew it after a change: UPDATE_README=1 npm test -- test/adapters/sweep-cost.test.ts
import { randomUUID } from 'node:crypto'
import { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import t from 'tap'
import { ensureDeviceTable } from '../../src/adapters/device-table.ts'
import { DynamoDbDeviceCatalog } from '../../src/adapters/dynamodb-device-catalog.ts'
import { DynamoDbDriftFindings } from '../../src/adapters/dynamodb-drift-findings.ts'
import { DynamoDbUnfinishedDevices } from '../../src/adapters/dynamodb-unfinished-devices.ts'
import { readProducts } from '../../src/products.ts'
import type { ControlPlane } from '../../src/vending/control-plane.ts'
import { SAMPLE_PASSES, sweep } from '../../src/vending/drift-sweep.ts'
import { SeenCertificates } from '../../src/vending/seen-certificates.ts'
import { ENGINES, clientOf } from '../fixtures/engines.ts'
import { PRODUCTS, fill, idOf, meter } from '../fixtures/many-devices.ts'
import { isInReadme, table } from '../fixtures/readme.ts'

const DEVICES = 250
const FLEET = 100_000
const PAGE = 250
const POLICY = 'policy'

t.setTimeout(900_000)

await t.test('what a pass costs at 100,000 devices', async t => {
  const { url, close } = await ENGINES[0]!.start()
  const client = clientOf(url)
  t.teardown(async () => { client.destroy(); await close() })
  const name = `sweep-${randomUUID()}`
  await ensureDeviceTable(client, name)
  // As large as a vended device's row is, with its certificate and the first lines of its history.
  await fill(client, name, DEVICES, { certificatePem: { S: 'x'.repeat(1_300) }, ballast: { S: 'x'.repeat(1_000) } })
  const documents = DynamoDBDocumentClient.from(client)
  const calls = { ListCertificates: 0, DescribeCertificate: 0, ListThingPrincipals: 0, ListAttachedPolicies: 0 }
  const spent = meter(client)
  const [standard] = readProducts({ PRODUCTS_FILE: '', IOT_POLICY_NAME: POLICY, RENEW_AFTER_MS: 1, REPLAY_WINDOW_MS: 1 }).values()
  const clock = { now: Date.now() }
  let looked = 0
  const run = {
    request: { requestId: 'sweep', dryRun: false },
    actions: [],
    devices: new DynamoDbUnfinishedDevices(documents, name),
    catalog: new DynamoDbDeviceCatalog(documents, name, PRODUCTS),
    findings: new DynamoDbDriftFindings(documents, name),
    products: new Map(PRODUCTS.map(name => [name, { ...standard!, name }])),
    controlPlane: fleetOf(calls),
    disable: async () => { throw new Error('nothing differs') },
    now: () => clock.now,
    deadline: () => new AbortController().signal,
    intervalMs: 1,
    seen: new SeenCertificates(),
    stuck: { revision: -1, tries: 0 },
    onLooked: (count: number) => { looked += count }
  }
  for (let pass = 0; pass < SAMPLE_PASSES; pass++) {
    // No certificate is new to any pass but the first.
    clock.now += 1_000
    t.match(await sweep(run, 100), { phase: 'rest', pass: pass + 1 })
  }
  t.same(run.actions, [])
  t.equal(looked, DEVICES * SAMPLE_PASSES, 'each certificate once in each pass')
  t.equal(calls.ListThingPrincipals, DEVICES, 'each device once in all of them')
  const scaled = (count: number) => String(Math.ceil(count / SAMPLE_PASSES * FLEET / DEVICES / 100) * 100)
  const units = spent()
  t.ok(units / SAMPLE_PASSES / DEVICES < 2.5, `${units / SAMPLE_PASSES / DEVICES} units a device and pass`)
  isInReadme(t, 'sweep-cost', table(['what', 'a pass over 100,000 devices'], [
    ...Object.entries(calls).map(([operation, count]) => [`\`${operation}\``, scaled(count)]),
    ['read and write units of DynamoDB', String(Math.ceil(units / SAMPLE_PASSES * FLEET / DEVICES / 10_000) * 10_000)]
  ]))
})

/** An AWS IoT where everything is as the registry says. */
function fleetOf (calls: Record<string, number>): ControlPlane {
  const count = <T>(operation: string, answer: T): Promise<T> => {
    calls[operation] = (calls[operation] ?? 0) + 1
    return Promise.resolve(answer)
  }
  const described = { status: 'ACTIVE', certificateArn: 'arn', certificatePem: 'pem', createdAt: 0, caCertificateId: undefined, certificateMode: 'DEFAULT' }
  return {
    listPage: (marker = '0') => {
      const end = Number(marker) + PAGE
      const certificates = Array.from({ length: PAGE }, (_, n) => ({ certificateId: idOf(Number(marker) + n), status: 'ACTIVE', createdAt: 0 }))
      return count('ListCertificates', { certificates, ...(end < DEVICES && { marker: String(end) }) })
    },
    describe: () => count('DescribeCertificate', described),
    // Of the things of the fixture: sn-0000007 has the certificate 7.
    certificatesOf: (thingName: string) => count('ListThingPrincipals', [idOf(Number(thingName.slice('sn-'.length)))]),
    policiesOf: () => count('ListAttachedPolicies', [POLICY])
  } as unknown as ControlPlane
}
