/* eslint no-template-curly-in-string: off -- policy variables */
import t from 'tap'
import { allows, parsePolicy } from '../../src/local/policy.ts'

const ARN = 'arn:aws:iot:us-east-1:000000000000:'
const doc = (...statements: object[]) => parsePolicy(JSON.stringify({ Version: '2012-10-17', Statement: statements }))
const allow = (Action: unknown, Resource: unknown, more: object = {}) => ({ Effect: 'Allow', Action, Resource, ...more })
const deny = (Action: unknown, Resource: unknown, more: object = {}) => ({ Effect: 'Deny', Action, Resource, ...more })

await t.test('decisions', async t => {
  const thing = new Map([['iot:ClientId', 'd1'], ['iot:Connection.Thing.ThingName', 'd1'], ['iot:Connection.Thing.IsAttached', 'true']])
  const none = new Map([['iot:ClientId', 'd1'], ['iot:Connection.Thing.IsAttached', 'false']])
  const cases: Array<[string, object[], string, string, ReadonlyMap<string, string>, boolean]> = [
    ['nothing allows nothing', [], 'iot:Connect', 'client/d1', thing, false],
    ['a plain allow', [allow('iot:Connect', ARN + 'client/d1')], 'iot:Connect', 'client/d1', thing, true],
    ['another resource', [allow('iot:Connect', ARN + 'client/d1')], 'iot:Connect', 'client/d10', thing, false],
    ['another action', [allow('iot:Connect', ARN + 'client/d1')], 'iot:Publish', 'client/d1', thing, false],
    ['lists', [allow(['iot:Publish', 'iot:Receive'], [ARN + 'topic/a', ARN + 'topic/b'])], 'iot:Receive', 'topic/b', thing, true],
    ['action wildcard', [allow('iot:*', '*')], 'iot:Publish', 'topic/x', thing, true],
    ['action in another case', [allow('IOT:publish', '*')], 'iot:Publish', 'topic/x', thing, true],
    ['star crosses levels', [allow('iot:Publish', ARN + 'topic/a/*')], 'iot:Publish', 'topic/a/b/c', thing, true],
    ['question mark is one character', [allow('iot:Publish', ARN + 'topic/a?')], 'iot:Publish', 'topic/ab', thing, true],
    ['question mark is not none', [allow('iot:Publish', ARN + 'topic/a?')], 'iot:Publish', 'topic/a', thing, false],
    ['a dot is a dot', [allow('iot:Publish', ARN + 'topic/a.b')], 'iot:Publish', 'topic/axb', thing, false],
    ['MQTT wildcards in a policy are letters', [allow('iot:Subscribe', ARN + 'topicfilter/a/#')], 'iot:Subscribe', 'topicfilter/a/b', thing, false],
    ['the same filter', [allow('iot:Subscribe', ARN + 'topicfilter/a/#')], 'iot:Subscribe', 'topicfilter/a/#', thing, true],
    ['deny wins', [allow('iot:*', '*'), deny('iot:Publish', ARN + 'topic/secret/*')], 'iot:Publish', 'topic/secret/x', thing, false],
    ['deny elsewhere', [allow('iot:*', '*'), deny('iot:Publish', ARN + 'topic/secret/*')], 'iot:Publish', 'topic/open', thing, true],
    ['thing name', [allow('iot:Connect', ARN + 'client/${iot:Connection.Thing.ThingName}')], 'iot:Connect', 'client/d1', thing, true],
    ['thing name of another', [allow('iot:Connect', ARN + 'client/${iot:Connection.Thing.ThingName}')], 'iot:Connect', 'client/d2', thing, false],
    ['unresolved', [allow('iot:Connect', ARN + 'client/${iot:Connection.Thing.ThingName}')], 'iot:Connect', 'client/d1', none, false],
    ['unresolved, even before a star', [allow('iot:Connect', '*${iot:Connection.Thing.ThingName}')], 'iot:Connect', 'client/', none, false],
    ['unresolved in one of two', [allow('iot:Connect', [ARN + 'client/${iot:Nothing}', ARN + 'client/d1'])], 'iot:Connect', 'client/d1', none, true],
    ['client id', [allow('iot:Publish', ARN + 'topic/${iot:ClientId}/x')], 'iot:Publish', 'topic/d1/x', none, true],
    ['wildcards in a value are not substituted', [allow('iot:Publish', ARN + 'topic/${iot:ClientId}/x')], 'iot:Publish', 'topic/*/x',
      new Map([['iot:ClientId', '*']]), false],
    ['attached', [allow('iot:Connect', '*', { Condition: { Bool: { 'iot:Connection.Thing.IsAttached': ['true'] } } })], 'iot:Connect', 'client/d1', thing, true],
    ['not attached', [allow('iot:Connect', '*', { Condition: { Bool: { 'iot:Connection.Thing.IsAttached': true } } })], 'iot:Connect', 'client/d1', none, false],
    ['string conditions', [allow('iot:Connect', '*', { Condition: { StringLike: { 'iot:ClientId': 'd?' }, StringNotEquals: { 'iot:ClientId': 'd2' } } })],
      'iot:Connect', 'client/d1', none, true],
    ['all conditions must hold', [allow('iot:Connect', '*', { Condition: { StringEquals: { 'iot:ClientId': 'd1' }, StringNotLike: { 'iot:ClientId': 'd*' } } })],
      'iot:Connect', 'client/d1', none, false]
  ]
  for (const [name, statements, action, resource, variables, expected] of cases) {
    t.equal(allows([statements.length === 0 ? [] : doc(...statements)], action, ARN + resource, variables), expected, name)
  }
  t.equal(allows([doc(allow('iot:*', '*')), doc(deny('iot:*', '*'))], 'iot:Connect', 'client/d1', thing), false, 'a deny in another policy')
})

await t.test('documents that are none', async t => {
  const bad: Array<[string, RegExp]> = [
    ['', /not valid JSON/], ['[]', /must be an object/], ['{}', /Statement must be an object/],
    ['{"Version":"2013-01-01","Statement":[]}', /Version/], ['{"Statement":[]}', /empty/],
    ['{"Statement":{"Effect":"Maybe","Action":"*","Resource":"*"}}', /Effect/],
    ['{"Statement":{"Effect":"Allow","Resource":"*"}}', /Action/],
    ['{"Statement":{"Effect":"Allow","Action":"*","Resource":[]}}', /Resource/],
    ['{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}', /Principal is not supported/],
    ['{"Statement":{"Effect":"Allow","NotAction":"*","Action":"*","Resource":"*"}}', /cannot be in one/],
    ['{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:CurrentTime":"2030"}}}}', /DateLessThan is not supported/],
    ['{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/33"}}}}', /CIDR/]
  ]
  for (const [text, message] of bad) t.throws(() => parsePolicy(text), { name: 'MalformedPolicyException', message })
})
