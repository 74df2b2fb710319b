import { postUntilAnswered } from './back-off.ts'
import { readCertificatePem } from './certificate-file.ts'
import { connect } from './settings.ts'
import type { ConnectionOptions } from './settings.ts'
import { facts } from './table.ts'

interface RegisterCertificateOptions extends ConnectionOptions { json?: boolean }

const PATIENCE = { timeoutMs: 120_000 }

/** Registers a certificate that was made elsewhere for a device, and says what became of it. Throws a `Failure`. */
export async function registerCertificate (serial: string, file: string, options: RegisterCertificateOptions): Promise<void> {
  const certificatePem = await readCertificatePem(file)
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
