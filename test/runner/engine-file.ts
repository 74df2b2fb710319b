// How the address of DynamoDB Local gets from the before-file to the test files: tap gives both the same environment and the same parent.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'

export interface EngineFile { url?: string }

const pathFor = (runner: number) => `node_modules/.cache/cvm-engines-${runner}.json`

/** Keeps what a run of tap uses, by the process id of its runner. */
export function writeEngineFile (runner: number, engines: EngineFile): void {
  mkdirSync('node_modules/.cache', { recursive: true })
  writeFileSync(pathFor(runner), JSON.stringify(engines))
}

/** What the run of tap that started this process uses; nothing where a file is run by itself. */
export function readEngineFile (runner = process.ppid): EngineFile {
  try {
    return JSON.parse(readFileSync(pathFor(runner), 'utf8')) as EngineFile
  } catch {
    return {}
  }
}

export function removeEngineFile (runner: number): void {
  rmSync(pathFor(runner), { force: true })
}
