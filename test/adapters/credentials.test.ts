// As on ECS: the task role's credentials come from an address in the environment and change every few hours. Calls are signed with those
// of the hour, under the day's own key.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { GetItemCommand } from '@aws-sdk/client-dynamodb'
import { UpdateCertificateCommand } from '@aws-sdk/client-iot'
import t from 'tap'
import { dynamodbClient, iotBindingClient } from '../../src/adapters/aws-clients.ts'
import { until } from '../fixtures/until.ts'

await t.test('calls are signed with the credentials of the hour', async t => {
  let given = 0
  const seen: string[] = []
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'application/json')
    const { authorization = '' } = request.headers
    if (request.url !== '/role') {
      seen.push(`${/Credential=(\w+)/.exec(authorization)?.[1]} ${String(request.headers['x-amz-security-token'])}`)
      return response.end('{}')
    }
    given++
    // So soon to end that the SDK asks for new ones while it still uses these.
    response.end(JSON.stringify({ AccessKeyId: `KEY${given}`, SecretAccessKey: `secret${given}`, Token: `token${given}`, Expiration: new Date(Date.now() + 10_000) }))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const names = ['AWS_CONTAINER_CREDENTIALS_FULL_URI', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_PROFILE', 'AWS_SHARED_CREDENTIALS_FILE', 'AWS_CONFIG_FILE']
  const before = names.map(name => [name, process.env[name]] as const)
  for (const name of names) delete process.env[name]
  process.env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] = `${url}/role`
  process.env['AWS_SHARED_CREDENTIALS_FILE'] = process.env['AWS_CONFIG_FILE'] = '/dev/null'
  const settings = { region: 'us-east-1', dynamodbEndpoint: url, iotEndpoint: url, callTimeoutMs: 5_000, credentials: undefined, observe () {} }
  const dynamodb = dynamodbClient(settings)
  const iot = iotBindingClient({ ...settings, pace: (_operation, _signal, call) => call() })
  t.teardown(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
    dynamodb.destroy()
    iot.destroy()
    server.close()
  })
  const calls = {
    dynamodb: () => dynamodb.send(new GetItemCommand({ TableName: 'table', Key: { id: { S: '1' } } })),
    iot: () => iot.send(new UpdateCertificateCommand({ certificateId: 'a'.repeat(64), newStatus: 'ACTIVE' }))
  }
  for (const [client, call] of Object.entries(calls)) {
    await call()
    const first = seen.at(-1)
    t.ok(await until(async () => { await call(); return seen.at(-1) !== first }), `the client of ${client} comes to sign with others`)
  }
  for (const each of seen) t.match(each, /^KEY(\d+) token\1$/)
})
