import { makeVerificationCertificate } from '../x509/verification.ts'
import { type SettingOptions, settingsOf, told } from './authority-settings.ts'
import { postUntilAnswered, untilAnswered } from './back-off.ts'
import { readCaKey } from './ca-key.ts'
import type { Service } from './client.ts'
import { readCertificatePem } from './certificate-file.ts'
import { EXIT, Failure, messageOf, printable } from './failure.ts'
import { type ConnectionOptions, connect } from './settings.ts'

interface RegisterOptions extends ConnectionOptions, SettingOptions {
  caKey?: string
  passphraseFile?: string
  verification?: string
  mode: string
  active?: boolean
  autoRegistration?: boolean
  json?: boolean
}

const PATIENCE = { timeoutMs: 120_000 }

/** Registers a CA; its key, where it is given, signs here and is sent nowhere. Throws a `Failure`. */
export async function register (caFile: string, options: RegisterOptions): Promise<void> {
  refuseMixed(options)
  const service = await connect(options)
  const caCertificatePem = await readCertificatePem(caFile, 'one')
  const verificationCertificatePem = await verificationOf(service, caFile, caCertificatePem, options)
  const { body, status } = await postUntilAnswered(service, 'v1/authorities', {
    caCertificatePem,
    ...verificationCertificatePem !== undefined && { verificationCertificatePem },
    mode: options.mode === 'sni-only' ? 'SNI_ONLY' : 'DEFAULT',
    status: options.active ? 'ACTIVE' : 'INACTIVE',
    autoRegistration: options.autoRegistration === true,
    ...await settingsOf(options)
  }, PATIENCE)
  if (options.json) return process.stdout.write(`${JSON.stringify(body, null, 2)}\n`) as never
  process.stdout.write(`${printable(String(body.subject ?? caFile))} is registered${status === 200 ? ', as it was before' : ''}\n`)
  process.stdout.write(told(body.caCertificateId, body))
}

function refuseMixed ({ mode, caKey, passphraseFile, verification }: RegisterOptions): void {
  const usage = (what: string, remedy: string) => new Failure(EXIT.usage, what, { remedy })
  const proofs = [caKey, verification].filter(given => given !== undefined)
  if (mode === 'sni-only' && proofs.length > 0) throw usage('--mode sni-only takes no proof of the key', 'Leave out --ca-key and --verification')
  if (mode === 'default' && proofs.length !== 1) throw usage('one of --ca-key and --verification is needed', 'Give the CA\'s key, or a verification certificate that it signed; or --mode sni-only')
  if (passphraseFile !== undefined && caKey === undefined) throw usage('--passphrase-file goes with --ca-key', 'Give both')
}

async function verificationOf (
  service: Service, caFile: string, caPem: string, { caKey, passphraseFile, verification }: RegisterOptions
): Promise<string | undefined> {
  if (verification !== undefined) return await readCertificatePem(verification, 'one')
  if (caKey === undefined) return undefined
  // The key first: nobody is asked anything by a command that cannot go on.
  const key = await readCaKey(caKey, passphraseFile)
  const { body } = await untilAnswered(service, { path: 'v1/authorities/registration-code' }, PATIENCE)
  try {
    return await makeVerificationCertificate(caPem, key, String(body.registrationCode), Date.now())
  } catch (error) {
    throw new Failure(EXIT.failed, `no verification certificate can be made with ${caFile} and ${caKey}`, { detail: messageOf(error) }, error)
  }
}
