// How a result is shown, in the terminal and in the README.
import type { Result } from './harness.ts'

export const HEAD = ['measured', 'against', 'goal', 'median', 'least to most', 'control', 'verdict']

export function rowOf ({ what, against, goal, value, unit, spread, control, rounds, verdict }: Result): string[] {
  const withUnit = (number: number) => `${number >= 100 ? number.toFixed(0) : number.toFixed(2)}${unit ? ` ${unit}` : ''}`
  const range = `${spread.map(withUnit).join(' to ')} in ${rounds}`
  return [what, against, goal && unit ? `${goal} ${unit}` : goal, withUnit(value), range, control?.toFixed(2) ?? '', verdict]
}
