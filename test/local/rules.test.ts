/* eslint no-template-curly-in-string: off -- substitution templates */
import * as aws from '@aws-sdk/client-iot'
import t from 'tap'
import { startRig } from './rig.ts'

const { iot, close } = await startRig()
t.teardown(close)

await t.test('rules are kept as they were sent', async t => {
  const topicRulePayload: aws.TopicRulePayload = {
    sql: "SELECT * FROM '$aws/events/certificates/registered/#'",
    description: 'JITR',
    awsIotSqlVersion: '2016-03-23',
    ruleDisabled: true,
    actions: [{ sqs: { roleArn: 'arn:aws:iam::000000000000:role/any', queueUrl: 'https://queue.example/q' } }],
    errorAction: { lambda: { functionArn: 'arn:aws:lambda:us-east-1:000000000000:function:f' } }
  }
  await iot.send(new aws.CreateTopicRuleCommand({ ruleName: 'kept', topicRulePayload }))
  const get = async () => await iot.send(new aws.GetTopicRuleCommand({ ruleName: 'kept' }))
  t.match(await get(), { ruleArn: 'arn:aws:iot:us-east-1:000000000000:rule/kept', rule: { ...topicRulePayload, ruleName: 'kept', createdAt: Date } })
  await t.rejects(iot.send(new aws.CreateTopicRuleCommand({ ruleName: 'kept', topicRulePayload })), { name: 'ResourceAlreadyExistsException' })
  await iot.send(new aws.ReplaceTopicRuleCommand({ ruleName: 'kept', topicRulePayload: { sql: "SELECT * FROM 'x/#'", actions: [] } }))
  t.match(await get(), { rule: { sql: "SELECT * FROM 'x/#'", ruleDisabled: false, description: undefined } })
  const list = async (query: aws.ListTopicRulesCommandInput): Promise<unknown[]> =>
    (await iot.send(new aws.ListTopicRulesCommand(query))).rules?.map(({ ruleName }) => ruleName) ?? []
  t.same(await list({ topic: 'x/y' }), ['kept'])
  t.same(await list({ ruleDisabled: true }), [])
  await iot.send(new aws.CreateTopicRuleCommand({ ruleName: 'other', topicRulePayload }))
  t.equal((await list({ maxResults: 1 })).length, 1)
  t.same(await list({ ruleDisabled: true }), ['other'])
  await iot.send(new aws.DeleteTopicRuleCommand({ ruleName: 'kept' }))
  for (const gone of [get(), iot.send(new aws.DeleteTopicRuleCommand({ ruleName: 'kept' })), iot.send(new aws.EnableTopicRuleCommand({ ruleName: 'kept' }))]) {
    await t.rejects(gone, { name: 'UnauthorizedException', message: "Access to topic rule 'kept' was denied" })
  }
})

await t.test('rules that are none', async t => {
  const http = (url: string, more: object = {}): aws.Action[] => [{ http: { url, ...more } }]
  const create = async (sql: string, actions: aws.Action[] = [], ruleName = 'bad') =>
    await iot.send(new aws.CreateTopicRuleCommand({ ruleName, topicRulePayload: { sql, actions } }))
  for (const sql of [
    '', 'SELECT', "FROM 'x'", 'SELECT * FROM x', "SELECT * FROM 'x", "SELECT * FROM 'x' WHERE", "SELECT a b FROM 'x'", "SELECT 'lit' FROM 'x'", "SELECT * FROM 'x' ORDER BY a",
    "SELECT aws_lambda('x') AS y FROM 'x'", "SELECT a + 1 AS y FROM 'x'", "SELECT * FROM 'x' WHERE a = ", "SELECT topic('x') AS y FROM 'x'", "SELECT * FROM 'x'; --", "SELECT (a FROM 'x'"
  ]) await t.rejects(create(sql), { name: sql === '' ? 'InvalidRequestException' : 'SqlParseException', $metadata: { httpStatusCode: 400 } }, sql)
  const cases: Array<[aws.Action[], RegExp]> = [
    [[{}] as aws.Action[], /one kind/], [[{ sqs: undefined, http: { url: '' } }] as unknown as aws.Action[], /url/],
    [Array.from({ length: 11 }, () => ({ lambda: { functionArn: 'x' } })), /at most 10/],
    [http('http://example.com/'), /https/], [http('ftp://localhost/'), /https/], [http('nothing'), /https/], [http('https://a.example/${x}'), /needs a confirmationUrl/],
    [http('https://a.example/x', { confirmationUrl: 'https://b.example' }), /prefix/],
    [http('https://a.example/x', { headers: Array.from({ length: 101 }, () => ({ key: 'a', value: 'b' })) }), /at most 100/]
  ]
  for (const [actions, message] of cases) await t.rejects(create("SELECT * FROM 'x'", actions), { name: 'InvalidRequestException', message })
  await t.rejects(create("SELECT * FROM 'x'", http('https://a.example', { headers: [{ key: 'a', value: '${x y}' }] })), { name: 'SqlParseException' })
  await t.rejects(create("SELECT * FROM 'x'", [], 'with-hyphen'), { name: 'InvalidRequestException', message: /ruleName/ })
  await t.rejects(create("SELECT * FROM '$SYS/x'"), { name: 'InvalidRequestException', message: /filter/ })
  const versioned = async (awsIotSqlVersion: string) =>
    await iot.send(new aws.CreateTopicRuleCommand({ ruleName: 'versioned', topicRulePayload: { sql: "SELECT * FROM 'x'", actions: [], awsIotSqlVersion } }))
  await t.rejects(versioned('2016-03-24'), { name: 'InvalidRequestException', message: /awsIotSqlVersion/ })
  await t.resolves(versioned('2016-03-23-beta'), 'the version that the JITR post names')
  t.same((await iot.send(new aws.ListTopicRuleDestinationsCommand({}))).destinationSummaries, [], 'a refused rule leaves no destination')
})
