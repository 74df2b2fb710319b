// A process of its own that sends requests at a rate, whatever becomes of them. A message tells it of which kind; the answer to the next
// one, `none` or another, is what became of them: how many of each status, and how long each took in milliseconds.
import { randomInt, randomUUID } from 'node:crypto'
import { clientOf, vendBody } from './service.ts'

type Kind = 'serial' | 'addresses' | 'vends' | 'none'
interface Wish { kind: Kind, url: string, csr: string, perSecond: number }
export interface Outcome { readonly status: number, readonly ms: number }

const CONNECTIONS = 800
const TICK_MS = 5

let timer: NodeJS.Timeout | undefined
let pending = new Set<Promise<void>>()
let outcomes: Outcome[] = []

const serialOf = (kind: Kind): string => kind === 'serial' ? 'sn-flood' : `${kind === 'addresses' ? 'wrong' : 'sn'}-${randomUUID()}`
const address = (): string => `10.${randomInt(256)}.${randomInt(256)}.${randomInt(1, 255)}`

let client: ReturnType<typeof clientOf> | undefined

/** With connections that are open already, as those of a balancer are: Node accepts but one new one in each turn of its event loop. */
async function connected (url: string) {
  const made = clientOf(url, CONNECTIONS)
  await Promise.all(Array.from({ length: CONNECTIONS }, () => made.post('{}')))
  return made
}

async function begin ({ kind, url, csr, perSecond }: Wish): Promise<void> {
  const { post } = client ??= await connected(url)
  let due = 0
  let last = performance.now()
  timer = setInterval(() => {
    const now = performance.now()
    due += (now - last) * perSecond / 1000
    last = now
    for (; due >= 1; due--) {
      const sent = post(vendBody(serialOf(kind), csr), { 'x-forwarded-for': address() })
        .then(({ status, ms }) => { outcomes.push({ status, ms }) }, () => { outcomes.push({ status: 0, ms: 0 }) })
        .finally(() => pending.delete(sent))
      pending.add(sent)
    }
  }, TICK_MS)
}

process.on('message', async (wish: Wish) => {
  clearInterval(timer)
  if (wish.kind !== 'none') return begin(wish)
  await Promise.all(pending)
  process.send!(outcomes)
  outcomes = []
  pending = new Set()
})
process.on('disconnect', () => process.exit())
process.send!('ready')
