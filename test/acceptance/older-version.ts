// An older version of the service, made from its commit, to stand beside this one on the same table.
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { must } from './docker.ts'
import { ROOT } from './processes.ts'
import { hasTool } from './tools.ts'

/** The last one before renewals, authorities and certificates made elsewhere: what has been deployed least recently. */
const COMMIT = 'cc0d36d4e2399f5ecdaf087af75082bc85004f99'

/**
 * Its `server.js`, built with this version's dependencies, of which @fastify/under-pressure is for it alone. Undefined where git does not
 * have it; the output says so.
 */
export async function olderServer (t: Test): Promise<string | undefined> {
  const isKnown = await hasTool(t, ['git', '-C', ROOT, 'cat-file', '-e', `${COMMIT}^{commit}`], 'git fetch --unshallow', 'an older version beside this one')
  if (!isKnown) return undefined
  // Below node_modules, where Node finds the packages.
  const cache = join(ROOT, 'node_modules/.cache/older')
  const built = join(cache, COMMIT)
  const server = join(built, 'dist/server.js')
  if (existsSync(server)) return server
  mkdirSync(cache, { recursive: true })
  const making = mkdtempSync(join(cache, 'making-'))
  try {
    await must('bash', ['-o', 'pipefail', '-c', `git archive ${COMMIT} | tar --extract --directory '${making}'`])
    await must(process.execPath, ['node_modules/typescript/bin/tsc', '-p', join(making, '.config/tsconfig.build.json'), '--noCheck'], { timeoutMs: 300_000 })
    renameSync(making, built)
  } catch (cause) {
    rmSync(making, { recursive: true, force: true })
    // A run beside this one may have been quicker.
    if (!existsSync(server)) throw cause
  }
  return server
}
