import { InvalidArgumentError } from 'commander'

/** Reads an option that is a whole number from `least` (1) to `most`. Throws commander's `InvalidArgumentError`. */
export function upTo (most: number, least = 1): (value: string) => number {
  return value => {
    if (!/^(0|[1-9]\d*)$/.test(value) || Number(value) > most || Number(value) < least) {
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`)
    }
    return Number(value)
  }
}

/** Reads an option in seconds: at most eleven days, which a timer can take. */
export const seconds = upTo(999_999)
