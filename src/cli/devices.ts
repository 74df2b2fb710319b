import { realpath } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import { Command } from 'commander'
import { checkDevices } from './device-list.ts'
import { EXIT, Failure, printable } from './failure.ts'
import { importDevices } from './import-devices.ts'
import type { Tally } from './import-devices.ts'
import { seconds, upTo } from './numbers.ts'
import { startProgress } from './progress.ts'
import { ResultFile } from './result-file.ts'
import { connect, withConnection } from './settings.ts'
import type { ConnectionOptions } from './settings.ts'
import { facts } from './table.ts'

interface ImportOptions extends ConnectionOptions { out?: string, product?: string, chunk: number, timeout: number, json?: boolean }

const ATTEMPT_MS = 60_000
const MOST_FAULTS_TOLD = 10

const HELP = `
The file is CSV with a header, serialNumber and as wanted product, registrationToken, tokenExpiresAt; or NDJSON with the same names when
its name ends in .ndjson. It is read through before anything is sent: a fault in it stops the import with nothing done.

For a device without a token a token of 256 bits is made here and written to the result file, as "pending", before it is sent. So
no token is ever lost: after a crash, Ctrl-C, a full disk or a lost answer run the same command again. Devices that are registered are
skipped, the others are sent with the same token, and the service answers "unchanged" where it had done them already.

The result file (CSV: serialNumber,status,product,registrationToken,code,detail) can be read by you only, because it holds the tokens
that were made; tokens of your own file are not copied into it. status is registered, unchanged (it was there, with this token), refused
(code and detail say why), failed (no answer for it) or pending (not known: run again). Hand it over, then delete it.`

/** `cvm devices …`: many devices at once. Its actions throw `Failure`. */
export function devicesCommand (): Command {
  const command = new Command('devices').description('register devices by the thousand (needs a key with the role operator or line)')
  withConnection(command.command('import <file>'))
    .description('register the devices of a CSV or NDJSON file; running it again goes on where it ended')
    .option('--out <file>', 'where the results and the tokens go (default: beside the file, as devices.results.csv)')
    .option('--product <product>', 'product of the lines that name none')
    .option('--chunk <n>', 'devices sent at once, 1 to 1000', upTo(1000), 200)
    .option('--timeout <seconds>', 'how long to go on with a chunk when the service is away or says "later"', seconds, 300)
    .option('--json', 'print the summary as JSON')
    .addHelpText('after', HELP)
    .action(runImport)
  return command
}

async function runImport (file: string, options: ImportOptions): Promise<void> {
  const { out = besides(file), product, chunk, timeout, json } = options
  const service = await connect(options)
  const total = await checkDevices(file)
  if (await realpath(out).catch(() => out) === await realpath(file)) throw new Failure(EXIT.usage, '--out is the file to be imported')
  const results = await ResultFile.open(out)
  const progress = startProgress(`importing ${file}`, total)
  const tally: Tally = { registered: 0, unchanged: 0, refused: 0, failed: 0, skipped: 0 }
  const faults: string[] = []
  try {
    await importDevices({
      service,
      file,
      results,
      ...product !== undefined && { product },
      chunk,
      patience: {
        timeoutMs: timeout * 1000,
        attemptMs: ATTEMPT_MS,
        onWait: (ms, why) => progress.say(`waiting ${(ms / 1000).toFixed(1)} s: ${printable(why)}`)
      },
      tally,
      advance: progress.advance,
      onFault: (line, { serialNumber, status, code, detail }) => {
        const why = [status, code, detail].filter(Boolean).join(': ')
        if (faults.length < MOST_FAULTS_TOLD) faults.push(`line ${line}, ${printable(serialNumber)}: ${printable(why)}`)
      }
    })
    await results.tidy()
    progress.stop('all lines were answered')
  } catch (error) {
    progress.stop('stopped before the end')
    throw error
  } finally {
    await results.close()
    for (const fault of faults) process.stderr.write(`${fault}\n`)
    summarize(total, tally, out, json === true)
  }
  const wrong = tally.refused + tally.failed
  if (wrong > 0) throw new Failure(EXIT.failed, `${wrong} of ${total} devices are not registered`, { remedy: `Look into ${out}, correct the file, run the same command again` })
}

function summarize (total: number, tally: Tally, out: string, isJson: boolean): void {
  const left = total - Object.values(tally).reduce((sum, count) => sum + count, 0)
  if (isJson) {
    process.stdout.write(`${JSON.stringify({ lines: total, ...tally, left, results: out })}\n`)
    return
  }
  const { registered, unchanged, refused, failed, skipped } = tally
  process.stdout.write(facts([
    ['devices', total],
    ['registered', registered],
    ['unchanged', unchanged],
    ['refused', refused],
    ['failed', failed],
    ['done before', skipped],
    ['left to do', left],
    ['results', `${out} (holds registration tokens: readable by you only)`]
  ]))
}

function besides (file: string): string {
  return join(dirname(file), `${basename(file, extname(file))}.results.csv`)
}
