import { InvalidArgumentError } from 'commander'

/** Reads an option that is a whole number from 1 to `most`. Throws commander's `InvalidArgumentError`. */
export function upTo (most: number): (value: string) => number {
  return value => {
    if (!/^[1-9]\d*$/.test(value) || Number(value) > most) throw new InvalidArgumentError(`It must be a whole number from 1 to ${most}.`)
    return Number(value)
  }
}

/** Reads an option in seconds: at most eleven days, which a timer can take. */
export const seconds = upTo(999_999)
