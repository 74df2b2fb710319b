import { postUntilAnswered } from './back-off.ts'
import { readText } from './device-folder.ts'
import { EXIT, Failure } from './failure.ts'
import { connect } from './settings.ts'
import type { ConnectionOptions } from './settings.ts'
import { facts } from './table.ts'

interface RegisterCertificateOptions extends ConnectionOptions { json?: boolean }

const PATIENCE = { timeoutMs: 120_000 }

/** Registers a certificate that was made elsewhere for a device, and says what became of it. Throws a `Failure`. */
export async function registerCertificate (serial: string, file: string, options: RegisterCertificateOptions): Promise<void> {
  const certificatePem = await readText(file)
  // The key often lies beside the certificate, and must not leave the machine.
  if (certificatePem.includes('PRIVATE KEY')) throw new Failure(EXIT.usage, `${file} holds a private key; give the certificate alone`)
  const request = { serialNumber: serial, certificatePem }
  const { body, status } = await postUntilAnswered(await connect(options), 'v1/certificates/register', request, PATIENCE)
  if (options.json) {
    process.stdout.write(`${JSON.stringify(body, null, 2)}\n`)
    return
  }
  process.stdout.write(`${status === 200 ? 'It was the certificate of' : 'Registered for'} ${serial}${status === 200 ? ' before' : ', and ACTIVE'}\n`)
  process.stdout.write(facts([
    ['certificate', body.certificateId],
    ['authority', body.caCertificateId ?? 'none: it is signed by its own key'],
    ['mode', body.certificateMode],
    ['thing', body.thingName],
    ['valid until', body.notAfter],
    ['endpoint', body.endpoint]
  ]))
}
