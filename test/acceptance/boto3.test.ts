// AWS's SDK for Python against the local AWS IoT Core: a table of calls and the error codes AWS would answer, and AWS's default rate.
import { join } from 'node:path'
import t from 'tap'
import { ROOT } from './processes.ts'
import { startLocalAws } from './service-process.ts'
import { hasTool, tool } from './tools.ts'

const CALLS = join(ROOT, 'test/acceptance/boto3-calls.py')

async function python<T> (url: string, what: string): Promise<T> {
  const { code, stdout, stderr } = await tool('python3', [CALLS, url, what], '', { timeout: 600_000 })
  if (code !== 0) throw new Error(`${CALLS} ended with ${code}: ${stderr}`)
  return JSON.parse(stdout) as T
}

t.setTimeout(900_000)
if (await hasTool(t, ['python3', '-c', 'import boto3'], 'pip: boto3', 'error codes and rates by the AWS SDK for Python')) {
  await t.test('every state transition, delete precondition and name limit: AWS\'s error code', async t => {
    const local = await startLocalAws(t, { name: 'dynalite' })
    const rows = await python<Array<[string, unknown, unknown]>>(local.iotUrl, 'errors')
    t.ok(rows.length > 100, `${rows.length} rows`)
    for (const [what, expected, got] of rows) t.same(got, expected, `${what}: ${String(expected)}`)
  })

  await t.test('LOCAL_QUOTAS=1: ten UpdateCertificate at once, the next is ThrottlingException', async t => {
    const local = await startLocalAws(t, { name: 'dynalite' }, { LOCAL_QUOTAS: '1' })
    const [accepted, throttled, seconds, first] = await python<[number, number, number, number]>(local.iotUrl, 'rate')
    t.equal(first, 10, 'a second\'s worth at once')
    t.equal(accepted + throttled, 60, `${accepted} accepted and ${throttled} throttled in ${seconds.toFixed(2)} s`)
    t.ok(accepted <= 11 + 10 * seconds, 'no more than AWS lets through')
    t.ok(throttled > 0 || seconds > 4, 'the rest is throttled')
  })
}
