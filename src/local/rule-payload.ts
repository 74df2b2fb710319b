import { invalidRequest } from './aws-error.ts'
import { optionalObject, optionalText, text } from './constraints.ts'
import { requireSendable } from './destinations.ts'
import { isTemplate } from './sql.ts'
import { parseStatement, type Statement } from './sql-syntax.ts'
import { wellFormed } from './topic.ts'

/** An action, as much of it as is of use here; `elsewhere` are those for services that are not here. */
export type RuleAction =
  | { readonly kind: 'http', readonly http: HttpAction }
  | { readonly kind: 'republish', readonly topic: string, readonly qos: 0 | 1 }
  | { readonly kind: 'sqs', readonly queueUrl: string, readonly useBase64: boolean }
  | { readonly kind: 'elsewhere', readonly service: string }

export interface HttpAction {
  readonly url: string
  readonly confirmationUrl?: string
  readonly headers: ReadonlyArray<{ readonly key: string, readonly value: string }>
  readonly signed: boolean
}

/** A topic rule's payload, understood; `sent` is what GetTopicRule gives back. */
export interface RulePayload {
  readonly sent: Readonly<Record<string, unknown>>
  readonly statement: Statement
  readonly actions: readonly RuleAction[]
  readonly errorAction: RuleAction | undefined
  readonly disabled: boolean
}

const KINDS = [
  'dynamoDB', 'dynamoDBv2', 'lambda', 'sns', 'sqs', 'kinesis', 'republish', 's3', 'firehose', 'cloudwatchMetric', 'cloudwatchAlarm',
  'cloudwatchLogs', 'elasticsearch', 'salesforce', 'iotAnalytics', 'iotEvents', 'iotSiteWise', 'stepFunctions', 'timestream', 'http',
  'kafka', 'openSearch', 'location'
]
const MEMBERS = ['sql', 'description', 'actions', 'ruleDisabled', 'awsIotSqlVersion', 'errorAction']
// The last is what AWS's post on just-in-time registration has one choose.
const SQL_VERSIONS = { values: ['2015-10-08', '2016-03-23', 'beta', '2016-03-23-beta'] }
const MAX_ACTIONS = 10
const MAX_HEADERS = 100
const URL_TEXT = { min: 1, max: 2000 }
const ANY = { min: 1 }

/** Reads what CreateTopicRule and ReplaceTopicRule are given; 400 SqlParseException for SQL and templates, InvalidRequest for the rest. */
export function parseRule (body: Readonly<Record<string, unknown>>): RulePayload {
  const statement = parseStatement(text(body['sql'], 'topicRulePayload.sql', ANY))
  if (!wellFormed(statement.filter)) throw invalidRequest(`The topic filter is not valid: ${statement.filter.slice(0, 256)}`)
  optionalText(body['description'], 'topicRulePayload.description', {})
  optionalText(body['awsIotSqlVersion'], 'topicRulePayload.awsIotSqlVersion', SQL_VERSIONS)
  const { actions, errorAction, ruleDisabled = false } = body
  if (!Array.isArray(actions) || actions.length > MAX_ACTIONS) throw invalidRequest(`A rule has a list of at most ${MAX_ACTIONS} actions`)
  if (typeof ruleDisabled !== 'boolean') throw invalidRequest('ruleDisabled must be a boolean')
  return {
    sent: Object.fromEntries(MEMBERS.flatMap(name => body[name] === undefined ? [] : [[name, body[name]]])),
    statement,
    actions: actions.map((action: unknown, at) => parseAction(action, `topicRulePayload.actions.${at + 1}.member`)),
    errorAction: errorAction === undefined || errorAction === null ? undefined : parseAction(errorAction, 'topicRulePayload.errorAction'),
    disabled: ruleDisabled
  }
}

function parseAction (value: unknown, member: string): RuleAction {
  const action = optionalObject(value, member) ?? {}
  const [kind, ...more] = Object.keys(action).filter(name => action[name] !== null)
  if (kind === undefined || more.length > 0 || !KINDS.includes(kind)) throw invalidRequest(`${member} must name one kind of action`)
  const details = optionalObject(action[kind], `${member}.${kind}`) ?? {}
  const required = (name: string, constraint = ANY): string => text(details[name], `${member}.${kind}.${name}`, constraint)
  if (kind === 'http') return { kind, http: parseHttp(details, `${member}.http`) }
  if (kind === 'republish') {
    required('roleArn')
    const topic = required('topic')
    isTemplate(topic)
    const { qos = 0 } = details
    if (qos !== 0 && qos !== 1) throw invalidRequest(`${member}.republish.qos must be 0 or 1`)
    // In a rule `$$` stands for the `$` of a reserved topic, which alone would begin a template.
    return { kind, topic: topic.replace(/^\$\$/, '$'), qos }
  }
  if (kind === 'sqs') {
    required('roleArn')
    return { kind, queueUrl: required('queueUrl'), useBase64: details['useBase64'] === true }
  }
  return { kind: 'elsewhere', service: kind }
}

function parseHttp (details: Record<string, unknown>, member: string): HttpAction {
  const url = text(details['url'], `${member}.url`, URL_TEXT)
  const confirmationUrl = optionalText(details['confirmationUrl'], `${member}.confirmationUrl`, URL_TEXT)
  if (isTemplate(url) && confirmationUrl === undefined) throw invalidRequest('A url with a substitution template needs a confirmationUrl')
  if (confirmationUrl !== undefined && !isTemplate(confirmationUrl) && !url.startsWith(confirmationUrl)) {
    throw invalidRequest('confirmationUrl must be a prefix of url')
  }
  if (!isTemplate(url)) requireSendable(url)
  const headers = details['headers'] ?? []
  if (!Array.isArray(headers) || headers.length > MAX_HEADERS) throw invalidRequest(`An http action has at most ${MAX_HEADERS} headers`)
  return {
    url,
    ...(confirmationUrl === undefined ? {} : { confirmationUrl }),
    headers: headers.map((header: unknown) => {
      const { key, value } = optionalObject(header, `${member}.headers`) ?? {}
      const checked = { key: text(key, `${member}.headers.key`, { min: 1, max: 256 }), value: text(value, `${member}.headers.value`, {}) }
      isTemplate(checked.value)
      return checked
    }),
    signed: details['auth'] !== undefined && details['auth'] !== null
  }
}
