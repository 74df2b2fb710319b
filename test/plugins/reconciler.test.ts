// The lease of reconcile: it is renewed while a run lasts, and a run whose lease another replica has ends.
import Fastify from 'fastify'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { reconciler } from '../../src/plugins/reconciler.ts'
import { ModelRegistry } from '../fixtures/model-registry.ts'

type Reconcile = (request: { stop: AbortSignal }) => Promise<never>

async function listening (t: Test, devices: ModelRegistry, reconcile: Reconcile): Promise<void> {
  const app = Fastify()
  await app.register(reconciler, { intervalMs: 60, devices, reconcile, log: pino({ level: 'silent' }) })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
}

/** Ends once the run is to stop. */
function stopped (stop: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => stop.addEventListener('abort', () => reject(new Error('stopped')), { once: true }))
}

await t.test('the lease is renewed while a run lasts', async t => {
  const devices = new ModelRegistry()
  const owners: string[] = []
  const renewed = new Promise<void>(resolve => {
    devices.lease = async (_name, owner) => {
      owners.push(owner)
      if (owners.length === 4) resolve()
      return true
    }
  })
  let runs = 0
  await listening(t, devices, async ({ stop }) => {
    runs++
    return stopped(stop)
  })
  await renewed
  t.equal(runs, 1)
  t.equal(new Set(owners).size, 1, 'by the same owner')
})

await t.test('a run ends when another replica has the lease', async t => {
  const devices = new ModelRegistry()
  let taken = 0
  devices.lease = async () => ++taken === 1
  let end = () => {}
  const ended = new Promise<void>(resolve => { end = resolve })
  await listening(t, devices, ({ stop }) => stopped(stop).finally(end))
  await ended
  t.ok(taken > 1)
})
