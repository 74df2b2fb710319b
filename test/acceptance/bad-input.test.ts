// Refusals that only a real connection can lose: the answer must arrive although the request was not read to its end.
import { randomBytes } from 'node:crypto'
import t from 'tap'
import { startService } from './service-process.ts'
import { curl } from './tools.ts'

t.setTimeout(900_000)

await t.test('a body that is too large is answered, not cut off', async t => {
  const service = await startService(t, { name: 'dynalite' }, { RATE_LIMIT_ADDRESS_MAX: '100000' })
  const outcomes: Record<string, number> = {}
  for (const size of [20_000, 50_000, 300_000, 1_000_000]) {
    for (let i = 0; i < 20; i++) {
      const outcome = await curl(`${service.serviceUrl}/v1/certificates`, { ca: service.rootCa, body: randomBytes(size / 2).toString('hex') })
        .then(({ status, text }) => `${status} ${JSON.parse(text).code}`, (cause: Error) => cause.message.replace(/https:\S+/, ''))
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    }
  }
  t.strictSame(outcomes, { '413 body-too-large': 80 })
})
