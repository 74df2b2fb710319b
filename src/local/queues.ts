/** A message that would have gone to SQS. */
export interface Queued { readonly queueUrl: string, readonly body: string }

const MAX = 1000

/** Where `sqs` actions deliver to here: a list in memory, the oldest giving way. No SQS client can read it; tests and the log can. */
export class Queues {
  readonly #messages: Queued[] = []

  add (message: Queued): void {
    this.#messages.push(message)
    if (this.#messages.length > MAX) this.#messages.shift()
  }

  /** All of them, oldest first. */
  list (): readonly Queued[] {
    return [...this.#messages]
  }
}
