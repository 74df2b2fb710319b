import { Command, Option } from 'commander'
import { openFolder } from './device-folder.ts'
import { EXIT, Failure, printable } from './failure.ts'
import { LineSession } from './line-session.ts'
import type { Keys } from './line-item.ts'
import { seconds, upTo } from './numbers.ts'
import { checkRequests } from './request-list.ts'
import { connect, withConnection } from './settings.ts'
import type { ConnectionOptions } from './settings.ts'
import { facts } from './table.ts'

interface VendOptions extends ConnectionOptions {
  out: string
  generateKeys?: boolean
  keysByAws?: boolean
  keyType: 'ec' | 'rsa'
  chunk: number
  posts: number
  timeout: number
  resume: boolean
  dryRun?: boolean
  json?: boolean
}

const HELP = `
The file is CSV with a header, serialNumber,registrationToken and as wanted csrFile or certificateSigningRequest, and product; or NDJSON with
the same names when its name ends in .ndjson. csrFile is a path that starts at the file's own folder; a CSR is there in PEM or DER. All of it
is read through before anything is sent: a fault stops the run with nothing done.

Each device gets a folder of its serial number under --out, with the files that \`cvm device enroll\` writes: certificate, root CA, facts and,
where it was made for it, the private key (mode 0600). With --generate-keys the key is on disk before its request is sent, so none is ever
lost: after a crash, Ctrl-C, a full disk or a lost answer run the same command again. It uses the same keys and gets the same certificates,
and skips the devices whose files are as the manifest says. (With --keys-by-aws the key is in one answer only: an answer that is lost on the
way is a device to be reset. Ctrl-C then waits for the posts under way; a second one does not.)

manifest.csv under --out (serialNumber,status,certificateId,code,detail and the SHA-256 of each file) says what became of every device: vended,
replayed (it had this certificate before), refused (code and detail say why) or failed (tried again until --timeout; run again).`

/** `cvm line …`: a manufacturing line. Its actions throw `Failure`. */
export function lineCommand (): Command {
  const command = new Command('line').description('certificates by the thousand (needs a key with the role line)')
  withConnection(command.command('vend <requests>'))
    .description('vend the devices of a CSV or NDJSON file; running it again goes on where it ended')
    .requiredOption('--out <folder>', 'where the folders of the devices and manifest.csv go; made when missing')
    .option('--generate-keys', 'make key and CSR here for lines without a CSR')
    .option('--keys-by-aws', 'let AWS IoT make the keys for lines without a CSR; not repeatable when an answer is lost')
    .addOption(new Option('--key-type <type>', 'kind of key to make').choices(['ec', 'rsa']).default('ec'))
    .option('--chunk <n>', 'devices in one post, 1 to 5000', upTo(5000), 500)
    .option('--posts <n>', 'posts at the same time, 1 to 8', upTo(8), 2)
    .option('--timeout <seconds>', 'how long to go on when nothing is answered, or with lines that keep failing', seconds, 300)
    .option('--resume', 'skip devices that are complete by the manifest and their files (the default)', true)
    .option('--no-resume', 'send every device again; the service answers "replayed" for what it had done')
    .option('--dry-run', 'ask what would be done with each line; nothing is vended or written')
    .option('--json', 'print the summary as JSON')
    .addHelpText('after', HELP)
    .action(runVend)
  return command
}

async function runVend (file: string, options: VendOptions): Promise<void> {
  const { out, keyType, resume, dryRun = false, json = false } = options
  const keys = keysOf(options)
  const service = await connect(options, 'line')
  const total = await checkRequests(file, keys === 'nobody')
  if (!dryRun) await openFolder(out)
  const bench = { out, keys, keyType, isDryRun: dryRun }
  const { chunk, posts: lanes } = options
  const timeoutMs = options.timeout * 1000
  const session = await LineSession.open({ service, file, total, bench, isResumed: resume, chunk, lanes, timeoutMs })
  try {
    await session.run()
  } finally {
    await session.close()
    for (const fault of session.faults) process.stderr.write(`${fault}\n`)
    summarize(session, total, json)
  }
  const { wrong } = session
  if (wrong === 0) return
  const remedy = dryRun ? 'Correct the file' : `Look into ${session.manifest}, correct what is wrong, run the same command again`
  throw new Failure(EXIT.failed, `${wrong} of ${total} devices ${dryRun ? 'would not be' : 'are not'} vended`, { remedy })
}

function keysOf ({ generateKeys, keysByAws }: VendOptions): Keys {
  if (generateKeys && keysByAws) throw new Failure(EXIT.usage, '--generate-keys and --keys-by-aws exclude each other', { remedy: 'cvm line vend --help' })
  return generateKeys ? 'here' : keysByAws ? 'aws' : 'nobody'
}

function summarize ({ tally, classes, manifest }: LineSession, lines: number, isJson: boolean): void {
  const left = lines - Object.values(tally).reduce((sum, count) => sum + count, 0)
  const numbers = { lines, ...tally, left }
  if (isJson) {
    const summary = manifest === undefined ? { dryRun: true, lines, classes: Object.fromEntries(classes), left } : { ...numbers, manifest }
    process.stdout.write(`${JSON.stringify(summary)}\n`)
    return
  }
  if (manifest === undefined) {
    process.stdout.write(facts([['devices', lines], ...[...classes].map(([name, count]) => [printable(name), count] as const), ['left to do', left]]))
    return
  }
  const { vended, replayed, refused, failed, skipped } = tally
  process.stdout.write(facts([
    ['devices', lines],
    ['vended', vended],
    ['replayed', replayed],
    ['refused', refused],
    ['failed', failed],
    ['done before', skipped],
    ['left to do', left],
    ['manifest', manifest]
  ]))
}
