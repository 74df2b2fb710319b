import type { Account } from './account.ts'
import { invalidRequest } from './aws-error.ts'
import { flag, MARKER, optionalObject, optionalText, pageSize, text } from './constraints.ts'
import type { Destination, DestinationStatus } from './destinations.ts'
import { epochSeconds, type Call, type Operations } from './operation.ts'
import { page } from './page.ts'
import { parseRule } from './rule-payload.ts'
import type { Rule } from './rules.ts'
import { covers } from './topic.ts'

const RULE_NAME = { min: 1, max: 128, pattern: /^[a-zA-Z0-9_]+$/ }
const ARN = { min: 1, max: 2048 }
const TOKEN = { min: 1, max: 2048 }
const STATUS = { values: ['ENABLED', 'IN_PROGRESS', 'DISABLED', 'ERROR', 'DELETING'] }

/** Topic rules: AWS IoT API model 1.5 of aws-facts. */
export function ruleOperations ({ rules }: Account): Operations {
  const nameIn = ({ params }: Call): string => text(params['ruleName'], 'ruleName', RULE_NAME)
  const url = '/rules/:ruleName'
  const turn = (call: Call, disabled: boolean): object => {
    rules.get(nameIn(call)).disabled = disabled
    return {}
  }

  return {
    CreateTopicRule: {
      method: 'POST',
      url,
      run: call => {
        rules.create(nameIn(call), parseRule(call.body))
        return {}
      }
    },
    ReplaceTopicRule: {
      method: 'PATCH',
      url,
      run: call => {
        rules.replace(nameIn(call), parseRule(call.body))
        return {}
      }
    },
    GetTopicRule: {
      method: 'GET',
      url,
      run: call => {
        const { name, arn, payload, createdAt, disabled } = rules.get(nameIn(call))
        return { ruleArn: arn, rule: { ...payload.sent, ruleName: name, createdAt: epochSeconds(createdAt), ruleDisabled: disabled } }
      }
    },
    ListTopicRules: {
      method: 'GET',
      url: '/rules',
      run: ({ query }) => {
        const topic = optionalText(query['topic'], 'topic', {})
        const disabled = query['ruleDisabled'] === undefined ? undefined : flag(query['ruleDisabled'], 'ruleDisabled')
        const found = rules.list().filter(rule =>
          (topic === undefined || covers(rule.payload.statement.filter, topic)) && (disabled === undefined || rule.disabled === disabled))
        const { items, next } = listed(found, ({ name }) => name, query, 10_000)
        return { rules: items.map(summary), nextToken: next }
      }
    },
    DeleteTopicRule: {
      method: 'DELETE',
      url,
      run: call => {
        rules.remove(nameIn(call))
        return {}
      }
    },
    EnableTopicRule: { method: 'POST', url: `${url}/enable`, run: call => turn(call, false) },
    DisableTopicRule: { method: 'POST', url: `${url}/disable`, run: call => turn(call, true) }
  }
}

/** Topic rule destinations and their confirmation: aws-facts 4. */
export function destinationOperations (account: Account): Operations {
  const { destinations } = account
  const arnIn = ({ params }: Call): string => text(params['*'], 'arn', ARN)

  return {
    CreateTopicRuleDestination: {
      method: 'POST',
      url: '/destinations',
      run: ({ body }) => {
        const configuration = optionalObject(body['destinationConfiguration'], 'destinationConfiguration') ?? {}
        const http = optionalObject(configuration['httpUrlConfiguration'], 'destinationConfiguration.httpUrlConfiguration')
        if (http === undefined) throw invalidRequest('The local AWS IoT has destinations of the kind httpUrlConfiguration only')
        const made = destinations.create(text(http['confirmationUrl'], 'confirmationUrl', { min: 1, max: 2000 }))
        return { topicRuleDestination: description(made, 'httpUrlProperties') }
      }
    },
    GetTopicRuleDestination: {
      method: 'GET',
      url: '/destinations/*',
      run: call => ({ topicRuleDestination: description(destinations.get(arnIn(call)), 'httpUrlProperties') })
    },
    ListTopicRuleDestinations: {
      method: 'GET',
      url: '/destinations',
      run: ({ query }) => {
        const sorted = destinations.list().sort((one, other) => one.arn < other.arn ? -1 : 1)
        const { items, next } = listed(sorted, ({ arn }) => arn, query, 1000)
        return { destinationSummaries: items.map(item => description(item, 'httpUrlSummary')), nextToken: next }
      }
    },
    UpdateTopicRuleDestination: {
      method: 'PATCH',
      url: '/destinations',
      run: ({ body }) => {
        destinations.update(text(body['arn'], 'arn', ARN), text(body['status'], 'status', STATUS) as DestinationStatus)
        return {}
      }
    },
    DeleteTopicRuleDestination: {
      method: 'DELETE',
      url: '/destinations/*',
      run: call => {
        destinations.remove(arnIn(call))
        return {}
      }
    },
    ConfirmTopicRuleDestination: {
      method: 'GET',
      url: '/confirmdestination/*',
      // The challenge's enableUrl is this address, opened by a browser or a script without credentials. The two differ: the link
      // enables, the API call leaves the destination DISABLED until UpdateTopicRuleDestination (developer guide).
      unsigned: true,
      run: ({ params, headers }) => {
        const signed = headers['authorization'] !== undefined
        destinations.confirm(text(params['*'], 'confirmationToken', TOKEN), signed ? 'DISABLED' : 'ENABLED')
        account.touch() // a GET that changes something
        return {}
      }
    }
  }
}

function listed<T> (sorted: readonly T[], key: (item: T) => string, query: Call['query'], max: number): ReturnType<typeof page<T>> {
  const size = pageSize(query['maxResults'], 'maxResults', max, max)
  return page(sorted, key, size, optionalText(query['nextToken'], 'nextToken', MARKER))
}

function summary ({ name, arn, payload, createdAt, disabled }: Rule): object {
  const { filter } = payload.statement
  return { ruleArn: arn, ruleName: name, topicPattern: filter, createdAt: epochSeconds(createdAt), ruleDisabled: disabled }
}

function description ({ arn, status, statusReason, createdAt, changedAt, confirmationUrl }: Destination, member: string): object {
  const dates = { createdAt: epochSeconds(createdAt), lastUpdatedAt: epochSeconds(changedAt) }
  return { arn, status, ...dates, statusReason, [member]: { confirmationUrl } }
}
