// Which replica sweeps for drift: the one that has the lease keeps it, another takes over when it stops, and none does where it is off.
import Fastify, { type FastifyInstance } from 'fastify'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { driftSweeper } from '../../src/plugins/drift-sweeper.ts'
import type { SweepPosition } from '../../src/vending/drift-findings.ts'
import { ModelRegistry } from '../fixtures/model-registry.ts'
import { until } from '../fixtures/until.ts'

const POSITION: SweepPosition = { revision: 1, pass: 1, startedAt: 0, previousStartedAt: 0, phase: 'rest', looked: 0 }

interface Replica { app: FastifyInstance, swept: number, shown: number }

async function replica (t: Test, devices: ModelRegistry, intervalMs: number, sweep = async () => POSITION): Promise<Replica> {
  const app = Fastify()
  const counts: Replica = { app, swept: 0, shown: 0 }
  await app.register(driftSweeper, {
    intervalMs,
    devices,
    log: pino({ level: 'silent' }),
    sweep: async () => { counts.swept += 1; return sweep() },
    show: async () => { counts.shown += 1 }
  })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  return counts
}

await t.test('one replica sweeps, also after a failure; the others show what is known; one takes over', async t => {
  const devices = new ModelRegistry()
  // A lease that ends when it is said to, and not because the machine is slow.
  let holder: string | undefined
  devices.lease = async (_name, owner) => {
    holder ??= owner
    return holder === owner
  }
  const first = await replica(t, devices, 200, async () => { throw new Error('AWS IoT is away') })
  t.ok(await until(() => first.swept > 0))
  const second = await replica(t, devices, 200)
  t.ok(await until(() => first.swept > 3 && second.shown > 1))
  t.equal(second.swept, 0)
  await first.app.close()
  holder = undefined
  t.ok(await until(() => second.swept > 1), 'once the lease is over')
})

await t.test('0: no replica sweeps', async t => {
  const devices = new ModelRegistry()
  let asked = 0
  devices.lease = async () => { asked++; return true }
  const off = await replica(t, devices, 0)
  const on = await replica(t, new ModelRegistry(), 200)
  t.ok(await until(() => on.swept > 2))
  t.same([off.swept, off.shown, asked], [0, 0, 0])
})
