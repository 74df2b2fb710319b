import { randomUUID } from 'node:crypto'
import type { Account } from './account.ts'
import { requireSendable, type Destination } from './destinations.ts'
import type { Log } from './log.ts'
import type { Message } from './messages.ts'
import type { Outbound } from './outbound.ts'
import type { Queues } from './queues.ts'
import type { HttpAction, RuleAction } from './rule-payload.ts'
import type { Rule } from './rules.ts'
import { filled, selected, subjectOf, type Subject } from './sql.ts'
import { covers, isEvent, publishable } from './topic.ts'

// A rule that republishes into its own filter would run for ever; AWS lets it, and bills it.
const MAX_HOPS = 10

/**
 * The rules engine (aws-facts 4): each message goes to every enabled rule whose filter covers its topic. Of the actions, http and
 * republish are carried out and sqs keeps its messages in memory; all others are logged as not delivered. What fails goes to the
 * rule's errorAction, once.
 */
export class RuleEngine {
  readonly #account: Account
  readonly #outbound: Outbound
  readonly #queues: Queues
  readonly #log: Log

  constructor (account: Account, outbound: Outbound, queues: Queues, log: Log) {
    this.#account = account
    this.#outbound = outbound
    this.#queues = queues
    this.#log = log
  }

  /** Runs the rules a message concerns; to be called with each one. */
  readonly hear = (message: Message): void => {
    const subject = subjectOf(message, this.#account.id)
    for (const rule of this.#account.rules.list()) {
      if (rule.disabled || !covers(rule.payload.statement.filter, message.topic)) continue
      const outcome = selected(rule.payload.statement, subject)
      if (outcome === undefined) continue
      this.#run(rule, subject, outcome).catch((error: unknown) => {
        this.#log.error({ err: error, rule: rule.name }, 'local rule failed')
      })
    }
  }

  /** Asks an endpoint's owner to confirm; to be called with each challenge. */
  readonly challenge = (destination: Destination): void => {
    const { arn, confirmationUrl, token } = destination
    const body = { arn, confirmationToken: token, enableUrl: `${this.#account.apiUrl}/confirmdestination/${token}`, messageType: 'DestinationConfirmation' }
    const headers = {
      'content-type': 'application/json',
      'x-amz-rules-engine-message-type': 'DestinationConfirmation',
      'x-amz-rules-engine-destination-arn': arn
    }
    const url = `${confirmationUrl.replace(/\/$/, '')}/?confirmationToken=${token}`
    this.#outbound.post(url, headers, Buffer.from(JSON.stringify(body))).catch((error: unknown) => {
      destination.statusReason = `The confirmation message was not delivered: ${(error as Error).message}`
      this.#log.warn({ destination: arn, confirmationUrl, err: error }, 'local rule destination did not take its confirmation message')
    })
  }

  async #run ({ name, payload }: Rule, subject: Subject, outcome: Buffer): Promise<void> {
    const tries = await Promise.allSettled(payload.actions.map(async action => { await this.#act(action, subject, outcome) }))
    const failures = tries.flatMap((tried, at) => {
      const action = payload.actions[at]
      if (tried.status === 'fulfilled' || action === undefined) return []
      return [{ failedAction: actionName(action), failedResource: resourceOf(action), errorMessage: (tried.reason as Error).message }]
    })
    const { topic, clientId = 'N/A', payload: original } = subject.message
    for (const failure of failures) this.#log.warn({ rule: name, topic, ...failure }, 'local rule action failed')
    if (failures.length === 0 || payload.errorAction === undefined) return
    const report = {
      ruleName: name, topic, cloudwatchTraceId: randomUUID(), clientId, base64OriginalPayload: original.toString('base64'), failures
    }
    await this.#act(payload.errorAction, subject, Buffer.from(JSON.stringify(report)))
  }

  async #act (action: RuleAction, subject: Subject, outcome: Buffer): Promise<void> {
    const { topic } = subject.message
    switch (action.kind) {
      case 'http': return await this.#send(action.http, subject, outcome)
      case 'republish': return this.#republish(filled(action.topic, subject), action.qos, subject, outcome)
      case 'sqs':
        this.#queues.add({ queueUrl: action.queueUrl, body: outcome.toString(action.useBase64 ? 'base64' : 'utf8') })
        return this.#log.info({ queueUrl: action.queueUrl, topic }, 'local rule action kept a message for SQS in memory')
      case 'elsewhere':
        return this.#log.warn({ action: action.service, topic }, 'local rule action not delivered: there is no such service here')
    }
  }

  async #send (action: HttpAction, subject: Subject, outcome: Buffer): Promise<void> {
    const url = filled(action.url, subject)
    requireSendable(url)
    if (!this.#account.destinations.allows(url)) throw new Error(`no ENABLED destination for ${url}`)
    if (action.signed) this.#log.warn({ url }, 'local rule action goes out without the SigV4 signature it asks for')
    const headers = action.headers.map(({ key, value }) => [key.toLowerCase(), filled(value, subject)])
    const type = isJson(outcome) ? 'application/json' : 'application/octet-stream'
    await this.#outbound.post(url, { 'content-type': type, ...Object.fromEntries(headers) }, outcome)
  }

  #republish (topic: string, qos: 0 | 1, { message }: Subject, outcome: Buffer): void {
    const hops = (message.hops ?? 0) + 1
    if (!publishable(topic) || isEvent(topic)) throw new Error(`cannot republish to ${topic.slice(0, 256)}`)
    if (hops > MAX_HOPS) throw new Error(`republished more than ${MAX_HOPS} times`)
    this.#account.messages.publish({ topic, payload: outcome, qos, hops })
  }
}

/** As AWS's error messages have it: `HttpAction`, `SqsAction`. */
function actionName (action: RuleAction): string {
  const name = action.kind === 'elsewhere' ? action.service : action.kind
  return `${name.charAt(0).toUpperCase()}${name.slice(1)}Action`
}

function resourceOf (action: RuleAction): string {
  switch (action.kind) {
    case 'http': return action.http.url
    case 'republish': return action.topic
    case 'sqs': return action.queueUrl
    case 'elsewhere': return ''
  }
}

function isJson (bytes: Buffer): boolean {
  try {
    JSON.parse(bytes.toString())
    return true
  } catch {
    return false
  }
}
