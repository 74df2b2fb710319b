import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { Command, Option } from 'commander'
import { readCertificateFile } from './certificate-file.ts'
import { isThisMachine } from './client.ts'
import { FILES, readFacts, readPrivateKey, readSecret } from './device-folder.ts'
import { enroll, enrollWithServiceKey } from './enroll.ts'
import { runAgent } from './agent.ts'
import { EXIT, Failure } from './failure.ts'
import { localFolder, readCredentials } from './local-mode.ts'
import type { Credentials } from './local-mode.ts'
import { seconds } from './numbers.ts'
import { privateKeyOf } from './private-key.ts'
import { publish } from './publish.ts'
import { type Renewal, renew, renewIfDue } from './renew.ts'
import { takeOverAlone } from './renewal-folder.ts'
import { findAddress, withAddress } from './settings.ts'

interface EnrollOptions {
  url?: string
  serial?: string
  tokenFile?: string
  deviceFile?: string
  out: string
  keyType: 'ec' | 'rsa'
  ca?: string
  keysByService?: boolean
  timeout: number
}

interface RenewOptions { url?: string, ca?: string, dir: string, ifDue?: boolean, audience?: string | undefined, timeout: number }

interface ConnectOptions { dir: string, endpoint?: string, clientId?: string, topic?: string, message: string, timeout: number }

/** `cvm device …`: what a device, or somebody in its place, does. Its actions throw `Failure`. */
export function deviceCommand (): Command {
  const command = new Command('device').description('get a certificate for a device, and use it')
  withAddress(command.command('enroll'))
    .description('make a key here and have it certified; running it again after a failure is safe')
    .option('--serial <serial>', 'serial number of the device')
    .option('--token-file <file>', 'file with the registration token, - for standard input (or set CVM_REGISTRATION_TOKEN)')
    .option('--device-file <file>', 'JSON with serialNumber and registrationToken (local mode: .cvm/demo-device.json, found by itself)')
    .requiredOption('--out <folder>', 'where key and certificate go; made when missing')
    .addOption(new Option('--key-type <type>', 'kind of key to make').choices(['ec', 'rsa']).default('ec'))
    .option('--keys-by-service', 'let AWS IoT make the key pair; not repeatable when its answer is lost')
    .option('--timeout <seconds>', 'how long to go on when the service is away or says "later"', seconds, 120)
    .action(runEnroll)
  withRenewal(command.command('renew'))
    .description('renew the certificate with a new key; running it again after a failure or a crash goes on where it stopped')
    .option('--if-due', 'only once the time to renew has come')
    .action(runRenew)
  withRenewal(command.command('agent'))
    .description('stay, and renew the certificate whenever it is due, until SIGTERM or Ctrl-C')
    .action(runDeviceAgent)
  command.command('connect')
    .description('connect to AWS IoT over MQTT with the enrolled files and publish one message')
    .requiredOption('--dir <folder>', 'the folder that `cvm device enroll` wrote')
    .option('--endpoint <host[:port]>', 'broker (default: as enrolled)')
    .option('--client-id <id>', 'MQTT client id (default: the thing name)')
    .option('--topic <topic>', 'topic (default: devices/<thing name>/hello)')
    .option('--message <text>', 'what to publish', 'hello')
    .option('--timeout <seconds>', 'how long to wait for the broker', seconds, 30)
    .action(runConnect)
  return command
}

function withRenewal (command: Command): Command {
  return withAddress(command)
    .requiredOption('--dir <folder>', 'the folder that `cvm device enroll` wrote')
    .option('--audience <text>', 'what the service wants proofs to be for (default: the endpoint of the device)')
    .option('--timeout <seconds>', 'how long to go on with one try when the service is away or says "later"', seconds, 120)
}

async function runEnroll (options: EnrollOptions): Promise<void> {
  const service = await findAddress(options)
  const credentials = await credentialsOf(options, isThisMachine(service.url))
  const patience = {
    timeoutMs: options.timeout * 1000,
    onWait: (ms: number, why: string) => note(`waiting ${(ms / 1000).toFixed(1)} s: ${why}`)
  }
  const enrolment = { service, ...credentials, folder: options.out, keyType: options.keyType, patience }
  const device = await (options.keysByService === true ? enrollWithServiceKey : enroll)(enrolment)
  print(`device          ${device.serialNumber}`)
  print(`thing           ${device.thingName}`)
  print(`certificate id  ${device.certificateId} (${device.isNew ? 'new' : 'the same as before'})`)
  print(`valid until     ${device.notAfter}, renew after ${device.renewAfter}`)
  print(`endpoint        ${device.endpoint}`)
  print(`files           ${Object.values(FILES).map(name => join(options.out, name)).join(' ')}`)
  print(`next            cvm device connect --dir ${options.out}`)
}

async function runRenew ({ dir: folder, ifDue, audience, timeout, ...options }: RenewOptions): Promise<void> {
  const renewal = await renewalOf({ ...options, dir: folder, timeout, audience })
  const { isRenewed, facts } = ifDue === true ? await renewIfDue(renewal) : { isRenewed: true, facts: await renew(renewal) }
  const { certificateId, notAfter, renewAfter } = facts
  if (!isRenewed) {
    print(`not due         to be renewed after ${renewAfter}`)
    return
  }
  print(`certificate id  ${certificateId} (new)`)
  print(`valid until     ${notAfter}, renew after ${renewAfter}`)
}

async function runDeviceAgent (options: RenewOptions): Promise<void> {
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort())
  const say = (line: string) => print(`${new Date().toISOString()} ${line}`)
  const facts = await readFacts(options.dir)
  say(facts ? `watching ${options.dir}: ${facts.serialNumber}, to be renewed after ${facts.renewAfter}` : `watching ${options.dir}`)
  await runAgent({ ...await renewalOf(options), signal: stop.signal, random: Math.random, say })
  say('stopped')
}

async function renewalOf ({ dir: folder, audience, timeout, ...options }: RenewOptions): Promise<Renewal> {
  const service = await findAddress(options)
  const patience = {
    timeoutMs: timeout * 1000, onWait: (ms: number, why: string) => note(`waiting ${(ms / 1000).toFixed(1)} s: ${why}`)
  }
  return { service, folder, patience, now: Date.now, ...audience !== undefined && { audience } }
}

async function runConnect ({ dir, message, timeout, ...options }: ConnectOptions): Promise<void> {
  await takeOverAlone(dir)
  const facts = await readFacts(dir)
  const privateKey = await readPrivateKey(dir)
  if (facts === undefined || privateKey === undefined) {
    throw new Failure(EXIT.failed, `${dir} holds no enrolled device`, { remedy: `cvm device enroll --out ${dir}` })
  }
  const [certificateFile, keyFile] = [join(dir, FILES.certificate), join(dir, FILES.privateKey)]
  const [[certificate], roots] = await Promise.all([readCertificateFile(certificateFile), readCertificateFile(join(dir, FILES.rootCa))])
  if (certificate?.checkPrivateKey(privateKeyOf(privateKey, keyFile)) !== true) {
    const remedy = `Enrol the device anew, or put the key of this certificate into ${keyFile}`
    throw new Failure(EXIT.failed, `the private key in ${keyFile} is not that of the certificate in ${certificateFile}`, { remedy })
  }
  const { endpoint = facts.endpoint, clientId = facts.thingName, topic = `devices/${facts.thingName}/hello` } = options
  await publish({ endpoint, ca: roots.join(''), certificate: certificate.toString(), privateKey, clientId, topic, message, timeoutMs: timeout * 1000 })
  print(`connected to    ${endpoint} as ${clientId}`)
  print(`published to    ${topic}, acknowledged by the broker`)
}

async function credentialsOf (options: EnrollOptions, isLocal: boolean): Promise<Credentials> {
  const { serial, tokenFile, deviceFile } = options
  if (deviceFile !== undefined) {
    if (serial !== undefined || tokenFile !== undefined) throw usage('--device-file stands for --serial and --token-file: give one or the other')
    return await readCredentials(deviceFile)
  }
  const demo = join(localFolder(), 'demo-device.json')
  if (serial === undefined && tokenFile === undefined && isLocal && await access(demo).then(() => true, () => false)) {
    note(`using the sample device in ${demo}`)
    return await readCredentials(demo)
  }
  if (serial === undefined) throw usage('--serial or --device-file is missing')
  return { serialNumber: serial, registrationToken: await readToken(tokenFile) }
}

/** Never an option of its own: every user of the machine can read a command line. */
async function readToken (file: string | undefined): Promise<string> {
  const token = file === undefined
    ? process.env.CVM_REGISTRATION_TOKEN
    : file === '-' ? await text(process.stdin) : await readSecret(file, 'the registration token')
  if (token === undefined) throw usage('--token-file is missing (or set CVM_REGISTRATION_TOKEN)')
  if (token.trim() === '') throw usage('the registration token is empty')
  return token.trim()
}

function usage (what: string): Failure {
  return new Failure(EXIT.usage, what, { remedy: 'cvm device enroll --help' })
}

function print (line: string): void {
  process.stdout.write(`${line}\n`)
}

function note (line: string): void {
  process.stderr.write(`${line}\n`)
}
