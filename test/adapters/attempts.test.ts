// When a call to AWS is made again, and what its caller gets in the end.
import { StandardRetryStrategy } from '@smithy/core/retry'
import t from 'tap'
import { type Failure, repeated, typeOf } from '../../src/adapters/attempts.ts'

const failure = (name: string, httpStatusCode: number) => Object.assign(new Error(name), { name, $fault: 'client', $metadata: { httpStatusCode } }) as Failure
const refused = () => failure('InvalidRequestException', 400)
const broken = () => failure('InternalFailure', 503)

/** Fails with each of these in turn, then answers. */
function attemptsOf (...failures: readonly Failure[]) {
  let made = 0
  return {
    made: () => made,
    async attempt () {
      const error = failures[made++]
      if (error) throw error
      return 'done'
    }
  }
}

const nameOf = (cause: unknown) => (cause as Error).name
const three = () => ({ strategy: new StandardRetryStrategy(3), typeOf })

await t.test('what may pass is tried again, as often as the strategy says, and the last error is the caller\'s', async t => {
  const passing = attemptsOf(broken(), broken())
  t.equal(await repeated(three(), undefined, passing.attempt), 'done')
  t.equal(passing.made(), 3)
  const last = broken()
  const staying = attemptsOf(broken(), broken(), last, broken())
  t.equal(await repeated(three(), undefined, staying.attempt).catch((cause: unknown) => cause), last, 'the error itself and no other')
  t.equal(staying.made(), 3)
})

await t.test('a refusal is not tried again, unless the client says that it may pass', async t => {
  const error = refused()
  const once = attemptsOf(error)
  t.equal(await repeated(three(), undefined, once.attempt).catch((cause: unknown) => cause), error)
  t.equal(once.made(), 1)
  const again = attemptsOf(refused())
  t.equal(await repeated({ ...three(), typeOf: () => 'TRANSIENT' }, undefined, again.attempt), 'done')
  t.equal(again.made(), 2)
})

await t.test('an abort ends the wait for the next attempt', async t => {
  const aborter = new AbortController()
  const strategy = new StandardRetryStrategy(3)
  strategy.refreshRetryTokenForRetry = () => new Promise(() => {})
  const waiting = { strategy, typeOf }
  const attempts = attemptsOf(broken())
  const call = repeated(waiting, aborter.signal, attempts.attempt)
  setImmediate(() => { aborter.abort() })
  t.equal(await call.catch(nameOf), 'AbortError')
  t.equal(attempts.made(), 1)
  t.equal(await repeated(waiting, AbortSignal.abort(), attemptsOf(broken()).attempt).catch(nameOf), 'AbortError')
})
