import { ConfirmTopicRuleDestinationCommand, type IoTClient, UpdateTopicRuleDestinationCommand } from '@aws-sdk/client-iot'
import { CvmError } from '../errors.ts'
import type { RuleDestinations } from '../vending/rule-destinations.ts'
import { failing, failureOf, nameOf } from './iot-failures.ts'

/** The destinations of rules through the SDK. Never by the URL that a challenge brings: whoever sends one could name any. */
export class IotDestinations implements RuleDestinations {
  readonly #client: IoTClient

  /** A client that retries within bounds. */
  constructor (client: IoTClient) {
    this.#client = client
  }

  async confirm ({ arn, confirmationToken }: Parameters<RuleDestinations['confirm']>[0], signal: AbortSignal): Promise<void> {
    try {
      await this.#client.send(new ConfirmTopicRuleDestinationCommand({ confirmationToken }), { abortSignal: signal })
    } catch (cause) {
      if (!['InvalidRequestException', 'UnauthorizedException'].includes(nameOf(cause))) throw failureOf(cause)
      throw new CvmError('confirmation-rejected', { cause })
    }
    await failing(this.#client.send(new UpdateTopicRuleDestinationCommand({ arn, status: 'ENABLED' }), { abortSignal: signal }))
  }
}
