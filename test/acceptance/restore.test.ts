// The README's "Backup and restore", typed as it stands there: after an older table was put in place, the registry learns again what
// AWS IoT knows.
import { randomBytes } from 'node:crypto'
import { DeleteItemCommand, PutItemCommand, type PutItemCommandInput } from '@aws-sdk/client-dynamodb'
import { AttachThingPrincipalCommand, CreateKeysAndCertificateCommand, CreateThingCommand } from '@aws-sdk/client-iot'
import t from 'tap'
import { BEST_ENGINE, apiKey } from './fleet.ts'
import { CLI, folder } from './processes.ts'
import { startLocalAws, startProduction } from './service-process.ts'
import { hasAwsCli, shell } from './shell.ts'
import { type Vended, curl, hasTool, isWholeRun, keyAndCsr, vendBody } from './tools.ts'
import { commandsOf } from './transcript.ts'

t.setTimeout(900_000)

type Row = Exclude<PutItemCommandInput['Item'], undefined>

const untested = 'putting the registry right after a restore, as the README says'
const hasTools = isWholeRun(t, untested) && await hasAwsCli(t, untested) && await hasTool(t, ['jq', '--version'], 'Debian: jq', untested)
await t.test('a restored registry is put right', { skip: hasTools ? false : 'see above' }, async t => {
  const dir = folder(t)
  const aws = await startLocalAws(t, BEST_ENGINE)
  const key = randomBytes(24).toString('base64url')
  // Reconcile would see to it that these young certificates agree; here nobody is to do it but who follows the README.
  const settings = { TOKEN_PEPPER: randomBytes(32).toString('base64'), API_KEYS: apiKey('operator', key), RECONCILE_INTERVAL_MS: '600000' }
  const { serviceUrl } = await startProduction(t, aws, settings)
  const typed = shell(t, aws, { CVM_URL: serviceUrl, CVM_API_KEY: key, XDG_CONFIG_HOME: dir })
  const cvm = `cvm () { '${process.execPath}' '${CLI}' "$@"; }`

  const vend = async (serialNumber: string, csr: string): Promise<{ status: number, vended: Vended }> => {
    const registrationToken = `token-of-${serialNumber}`
    const { status, text } = await curl(`${serviceUrl}/v1/certificates`, { body: vendBody({ serialNumber, registrationToken }, csr) })
    return { status, vended: JSON.parse(text) as Vended }
  }
  const serials = ['sn-kept', 'sn-revoked', 'sn-later']
  const csrs = new Map<string, string>()
  for (const serialNumber of serials) {
    await aws.register({ serialNumber, registrationToken: `token-of-${serialNumber}` })
    csrs.set(serialNumber, (await keyAndCsr(dir, serialNumber, 'P-256', serialNumber)).csr)
  }
  const enroll = (serialNumber: string) => vend(serialNumber, csrs.get(serialNumber) ?? '')
  const [kept, revoked] = [await enroll('sn-kept'), await enroll('sn-revoked')]
  const backup = await aws.rows() as Row[]
  await typed.must(`${cvm}; cvm operator revoke sn-revoked --reason stolen`)
  const later = await enroll('sn-later')
  t.strictSame([kept, revoked, later].map(({ status }) => status), [201, 201, 201])
  const foreign = await somebodyElses()

  for (const { serialNumber } of await aws.rows() as Row[]) {
    await aws.dynamodb.send(new DeleteItemCommand({ TableName: aws.tableName, Key: { serialNumber: serialNumber! } }))
  }
  for (const Item of backup) await aws.dynamodb.send(new PutItemCommand({ TableName: aws.tableName, Item }))
  t.strictSame(await states(), { 'sn-kept': 'ACTIVE', 'sn-revoked': 'ACTIVE', 'sn-later': 'REGISTERED' }, 'the registry has forgotten')

  const commands = commandsOf('restored')
  t.ok(commands.length > 1, 'the README has it')
  for (const { command, prints } of commands) {
    const { stdout, stderr } = await typed.run(`${cvm}\n${command}`)
    t.match(stdout + stderr, prints, command.trim())
  }
  t.strictSame(await states(), { 'sn-kept': 'ACTIVE', 'sn-revoked': 'REVOKED', 'sn-later': 'REGISTERED' })
  const statuses = async () => Object.fromEntries((await aws.certificates()).map(({ certificateId, status }) => [certificateId, status]))
  const expected = {
    [kept.vended.certificateId]: 'ACTIVE', [revoked.vended.certificateId]: 'REVOKED', [later.vended.certificateId]: 'REVOKED', [foreign]: 'ACTIVE'
  }
  t.strictSame(await statuses(), expected, 'what nobody knew has ended, and somebody else\'s certificate goes on')

  const again = await enroll('sn-later')
  t.equal(again.status, 201, 'the device enrolls again with its token')
  t.strictSame(await statuses(), { ...expected, [again.vended.certificateId]: 'ACTIVE' })

  async function states (): Promise<Record<string, string | undefined>> {
    const rows = await aws.rows() as Row[]
    const found = new Map(rows.map(({ serialNumber, state }) => [serialNumber?.S, state?.S ?? 'REGISTERED']))
    return Object.fromEntries(serials.map(serial => [serial, found.get(serial)]))
  }

  async function somebodyElses (): Promise<string> {
    const { certificateId = '', certificateArn } = await aws.iot.send(new CreateKeysAndCertificateCommand({ setAsActive: true }))
    await aws.iot.send(new CreateThingCommand({ thingName: 'lamp' }))
    await aws.iot.send(new AttachThingPrincipalCommand({ thingName: 'lamp', principal: certificateArn }))
    return certificateId
  }
})
