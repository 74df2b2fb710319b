import type { Account } from './account.ts'
import type { Log } from './log.ts'
import { Outbound } from './outbound.ts'
import { Queues, type Queued } from './queues.ts'
import { RuleEngine } from './rule-engine.ts'
import { ShadowTopics } from './shadow-topics.ts'

/** AWS's time limit for an http action, all its tries together. */
const HTTP_ACTION_MS = 3000

/** What acts on messages, the shadows and the rules; to be closed before what sends them, so that a shutdown is no event to them. */
export function startListeners (
  account: Account, rootCaPem: string, ruleTimeoutMs: number | undefined, log: Log
): { queued: () => readonly Queued[], close: () => Promise<void> } {
  const outbound = new Outbound(rootCaPem, ruleTimeoutMs ?? HTTP_ACTION_MS)
  const queues = new Queues()
  const shadows = new ShadowTopics(account)
  const rules = new RuleEngine(account, outbound, queues, log)
  account.messages.on('published', shadows.hear)
  account.messages.on('published', rules.hear)
  account.destinations.on('challenge', rules.challenge)
  return {
    queued: () => queues.list(),
    close: async () => {
      account.messages.off('published', shadows.hear)
      account.messages.off('published', rules.hear)
      account.destinations.off('challenge', rules.challenge)
      outbound.close()
    }
  }
}
