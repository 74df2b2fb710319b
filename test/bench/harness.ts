// What every measurement shares: rounds in which the two sides stand next to each other, medians, verdicts, and the machine.
import { readFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'

/** How much is measured: a smoke run shows only that it runs. */
export interface Size { readonly rounds: number, readonly scale: number }

/** One line of the results. */
export interface Result {
  readonly what: string
  readonly against: string
  readonly goal: string
  /** Median over the rounds of ours divided by the peer's; where `unit` is given, of ours alone. */
  readonly value: number
  readonly unit?: string
  readonly spread: readonly [least: number, most: number]
  /** Median over the rounds of the peer divided by the peer measured again. A run where it is outside 0.9 to 1.1 says nothing. */
  readonly control?: number
  readonly rounds: number
  readonly verdict: 'met' | 'not met' | 'void' | 'stated'
}

/** What it costs to do the work once over, in any unit that is the same for both sides. */
export type Cost = () => number | Promise<number>
interface Goal { readonly what: string, readonly against: string, readonly atMost?: number, readonly atLeast?: number }

/**
 * Measures peer, ours, peer in every round, so that what drifts slowly touches both sides alike. With `atLeast` the value is a ratio of
 * rates.
 */
export async function paired (goal: Goal, rounds: number, ours: Cost, peer: Cost): Promise<Result> {
  await peer()
  await ours()
  const ratios: number[] = []
  const controls: number[] = []
  for (let round = 0; round < rounds; round++) {
    const [before, own, after] = [await peer(), await ours(), await peer()]
    const peers = (before + after) / 2
    ratios.push(goal.atLeast === undefined ? own / peers : peers / own)
    controls.push(before / after)
  }
  return resultOf(goal, ratios, { control: median(controls) })
}

/** Ratios, or values in a unit, that were measured elsewhere. */
export function resultOf (
  { what, against, atMost, atLeast }: Goal, values: readonly number[], { control, unit }: { control?: number, unit?: string } = {}
): Result {
  const value = median(values)
  const isVoid = control !== undefined && (control < 0.9 || control > 1.1)
  const hasGoal = atMost !== undefined || atLeast !== undefined
  const isMet = value <= (atMost ?? Infinity) && value >= (atLeast ?? -Infinity)
  return {
    what,
    against,
    goal: [atMost !== undefined && `≤ ${atMost}`, atLeast !== undefined && `≥ ${atLeast}`].filter(Boolean).join(', '),
    value,
    ...(unit && { unit }),
    spread: [Math.min(...values), Math.max(...values)],
    ...(control !== undefined && { control }),
    rounds: values.length,
    verdict: isVoid ? 'void' : !hasGoal ? 'stated' : isMet ? 'met' : 'not met'
  }
}

export function median (values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Between the two values that are nearest. */
export function quantile (values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (sorted.length - 1) * share
  const [low, high] = [sorted[Math.floor(at)]!, sorted[Math.ceil(at)]!]
  return low + (high - low) * (at - Math.floor(at))
}

/** CPU time of this process that the work took, user and system, in milliseconds. */
export async function cpuMs (work: () => unknown): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}

/** CPU time of another process since it began, user and system, in milliseconds. Linux counts in hundredths of a second. */
export function cpuMsOf (pid: number): number {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ').slice(11, 13).map(Number)
  return (user! + system!) * 10
}

/** Resident memory of another process. */
export function rssMbOf (pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

/** Does the work so often, so many at a time. */
export async function crowd (atOnce: number, times: number, work: (n: number) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(Array.from({ length: Math.min(atOnce, times) }, async () => { while (next < times) await work(next++) }))
}

/** Where and when the figures were taken. */
export function machine () {
  const [{ model = 'unknown' } = {}] = cpus()
  const load = loadavg().map(value => Number(value.toFixed(2)))
  const { node, openssl } = process.versions
  return { at: new Date().toISOString(), cpu: model, cores: cpus().length, memoryGb: Math.round(totalmem() / 2 ** 30), node, openssl, load }
}
