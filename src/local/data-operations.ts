import { randomUUID } from 'node:crypto'
import type { Account } from './account.ts'
import { AwsError, invalidRequest } from './aws-error.ts'
import { flag, MARKER, NAME, optionalText, pageSize, text } from './constraints.ts'
import type { Call, Operations } from './operation.ts'
import { page } from './page.ts'
import { ShadowTopics } from './shadow-topics.ts'
import { isEvent, publishable } from './topic.ts'

const SHADOW_NAME = { min: 1, max: 64, pattern: /^[$a-zA-Z0-9:_-]+$/ }
const QOS = { values: ['0', '1'] }
const MAX_PAYLOAD_BYTES = 128 * 1024

/** The data plane over HTTPS: shadows (aws-facts 1.6) and Publish. */
export function dataOperations (account: Account): Operations {
  const shadows = new ShadowTopics(account)
  const thingIn = ({ params }: Call): string => text(params['thingName'], 'thingName', NAME)
  const nameIn = ({ query }: Call): string => optionalText(query['name'], 'shadowName', SHADOW_NAME) ?? ''
  const shadow = '/things/:thingName/shadow'

  return {
    GetThingShadow: { plane: 'data', method: 'GET', url: shadow, run: call => shadows.get(thingIn(call), nameIn(call)) },
    UpdateThingShadow: {
      plane: 'data', method: 'POST', url: shadow, run: call => shadows.update(thingIn(call), nameIn(call), call.payload)
    },
    DeleteThingShadow: { plane: 'data', method: 'DELETE', url: shadow, run: call => shadows.remove(thingIn(call), nameIn(call)) },
    ListNamedShadowsForThing: {
      plane: 'data',
      method: 'GET',
      url: '/api/things/shadow/ListNamedShadowsForThing/:thingName',
      run: call => {
        const size = pageSize(call.query['pageSize'], 'pageSize', 100, 100)
        const marker = optionalText(call.query['nextToken'], 'nextToken', MARKER)
        const { items, next } = page(account.shadows.namesOf(thingIn(call)), name => name, size, marker)
        return { results: items, nextToken: next, timestamp: Math.floor(Date.now() / 1000) }
      }
    },
    Publish: {
      plane: 'data',
      method: 'POST',
      url: '/topics/*',
      run: ({ params, query, payload }) => {
        const topic = params['*'] ?? ''
        const qos = optionalText(query['qos'], 'qos', QOS) === '1' ? 1 : 0
        if (!publishable(topic)) throw invalidRequest(`The topic is not valid: ${topic.slice(0, 256)}`)
        if (isEvent(topic)) throw new AwsError('ForbiddenException', `Only AWS IoT publishes to ${topic}`)
        if (payload.length > MAX_PAYLOAD_BYTES) throw new AwsError('RequestEntityTooLargeException', 'The payload exceeds the maximum size allowed')
        account.messages.publish({ topic, payload, qos, retain: flag(query['retain'], 'retain') })
        return { message: 'OK', traceId: randomUUID() }
      }
    }
  }
}
