import { readdirSync } from 'node:fs'
import { basename, dirname } from 'node:path'

/** The process that has the lock of a file; undefined where none has. */
export function holderOf (file: string): number | undefined {
  const prefix = `${basename(file)}.lock-`
  const sign = readdirSync(dirname(file)).find(name => name.startsWith(prefix))
  return sign === undefined ? undefined : Number.parseInt(sign.slice(prefix.length), 10)
}
