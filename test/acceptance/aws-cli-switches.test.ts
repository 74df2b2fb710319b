// The switches of the local AWS as a user of the AWS CLI meets them: AWS's quotas, injected faults, and a folder that keeps the state.
import t from 'tap'
import { wholeOnly } from '../fixtures/whole-only.ts'
import { folder, run as runNode, LOCAL_AWS } from './processes.ts'
import { FREE_PORTS, startLocalAws } from './service-process.ts'
import { hasAwsCli, shell } from './shell.ts'
import { curl } from './tools.ts'

interface Made { readonly certificateId: string, readonly certificateArn: string, readonly certificatePem: string }

t.setTimeout(900_000)
const found = await hasAwsCli(t, 'quotas, faults and kept state by the AWS CLI')
const DYNALITE = { name: 'dynalite' }

if (found) {
  await t.test('quotas', async t => {
    // A thousandth of AWS's rates: an aws takes half a second to start, and at AWS's rates the bucket would be full again by then.
    const { must, refused, run } = shell(t, await startLocalAws(t, DYNALITE, { LOCAL_QUOTAS: '0.001' }))
    const { certificateId } = await must<Made>('aws iot create-keys-and-certificate')
    await refused('aws iot create-keys-and-certificate', 'ThrottlingException')
    const update = `aws iot update-certificate --certificate-id ${certificateId} --new-status ACTIVE`
    await must(update)
    t.match(await run(update), { stderr: /Rate exceeded/ })
    t.match(await must(`aws iot describe-certificate --certificate-id ${certificateId}`), { certificateDescription: { status: 'ACTIVE' } }, 'each operation has its own')
  })

  await t.test('faults', { skip: wholeOnly }, async t => {
    const rules = [
      { operation: 'ListThings', kind: 'error', times: 1 },
      { operation: 'ListPolicies', kind: 'error', status: 503, times: 2 },
      { operation: 'CreateThing', kind: 'cut-after', times: 1 },
      { operation: 'DescribeThing', kind: 'throttle', skip: 1, times: 1 }
    ]
    const local = await startLocalAws(t, DYNALITE, { LOCAL_FAULTS: JSON.stringify(rules) })
    const { must, refused, run } = shell(t, local)
    await refused('aws iot list-things', 'InternalFailureException')
    await must('aws iot list-things')
    await must('AWS_MAX_ATTEMPTS=3 aws iot list-policies')
    const { code, stderr } = await run('aws iot create-thing --thing-name cut')
    t.not(code, 0)
    t.match(stderr, /Connection was closed before we received a valid response/)
    t.match(await must('aws iot describe-thing --thing-name cut'), { thingName: 'cut' }, 'the answer was lost, the work was done')
    await refused('aws iot describe-thing --thing-name cut', 'ThrottlingException')
    await must('aws iot describe-thing --thing-name cut')

    const url = `${local.iotUrl}/_local/faults`
    t.match(JSON.parse((await curl(url)).text), { rules: [{ fired: 1 }, { fired: 2 }, { fired: 1 }, { fired: 1 }] })
    t.equal((await curl(url, { method: 'PUT', body: JSON.stringify([{ operation: 'GetPolicy', kind: 'error' }]) })).status, 200)
    await refused('aws iot get-policy --policy-name cvm-device-policy', 'InternalFailureException')
    t.equal((await curl(url, { method: 'PUT', body: '[{"operation":"GetPolicies","kind":"error"}]' })).status, 400)
    t.equal((await curl(url, { method: 'DELETE' })).status, 200)
    await must('aws iot get-policy --policy-name cvm-device-policy')
  })

  await t.test('state', { skip: wholeOnly }, async t => {
    const dir = folder(t)
    const first = await startLocalAws(t, DYNALITE, { CVM_LOCAL_DIR: dir })
    t.equal((await curl(`${first.iotUrl}/_local/faults`)).status, 403, 'without LOCAL_FAULTS there is no door to faults')
    const before = shell(t, first)
    const made = await before.must<Made>('aws iot create-keys-and-certificate --set-as-active')
    const code = await before.must('aws iot get-registration-code')
    const thing = await before.must<{ thingId: string }>('aws iot create-thing --thing-name kept')
    await before.must(`aws iot attach-thing-principal --thing-name kept --principal ${made.certificateArn}`)
    await before.must('echo \'{"state":{"desired":{"a":1}}}\' > shadow.json')
    await before.must('aws iot-data update-thing-shadow --thing-name kept --payload fileb://shadow.json answer.json')
    const { exit, output } = await runNode(t, [LOCAL_AWS], { ...FREE_PORTS, CVM_LOCAL_DIR: dir })
    t.equal(exit, 1, 'a second one in the same folder does not start')
    t.match(output, `in use by process ${first.pid}`)
    await first.stop()

    const second = shell(t, await startLocalAws(t, DYNALITE, { CVM_LOCAL_DIR: dir }))
    t.same(await second.must('aws iot get-registration-code'), code)
    t.match(await second.must('aws iot describe-thing --thing-name kept'), { thingId: thing.thingId })
    t.same(await second.must('aws iot list-thing-principals --thing-name kept'), { principals: [made.certificateArn] })
    t.match(await second.must(`aws iot describe-certificate --certificate-id ${made.certificateId}`), { certificateDescription: { certificatePem: made.certificatePem, status: 'ACTIVE' } })
    await second.must('aws iot-data get-thing-shadow --thing-name kept answer.json')
    t.match(await second.must('cat answer.json'), { state: { desired: { a: 1 } }, version: 1 })
  })
}
