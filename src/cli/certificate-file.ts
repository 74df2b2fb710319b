import { X509Certificate } from 'node:crypto'
import { encodePem } from '../x509/pem.ts'
import { readBytes } from './device-folder.ts'
import { EXIT, Failure } from './failure.ts'
import { isDer, kindOf, textOf } from './file-kind.ts'

const BLOCK = /-----BEGIN (?:X509 )?CERTIFICATE-----([^-]+)-----END (?:X509 )?CERTIFICATE-----/g

/**
 * The certificates in a file that a person gives, in its order, at least one: PEM with any text around it, in UTF-8 or UTF-16, or DER.
 * Throws a `Failure` that names the file and says what it is instead.
 */
export async function readCertificateFile (file: string): Promise<readonly X509Certificate[]> {
  const bytes = await readBytes(file)
  const blocks = isDer(bytes) ? [bytes] : [...textOf(bytes).matchAll(BLOCK)].map(([, base64 = '']) => Buffer.from(base64, 'base64'))
  if (blocks.length === 0) throw notACertificate(file, bytes)
  return blocks.map((der, index) => {
    try {
      return new X509Certificate(der)
    } catch (error) {
      const which = blocks.length > 1 ? `certificate ${index + 1} in it` : 'it'
      throw notACertificate(file, bytes, which, error)
    }
  })
}

/**
 * The same, or exactly one, as PEM that holds nothing else, for the service. A private key beside a certificate is refused: it must not
 * leave the machine.
 */
export async function readCertificatePem (file: string, count: 'one' | 'any' = 'any'): Promise<string> {
  const bytes = await readBytes(file)
  const kind = kindOf(bytes)
  if (textOf(bytes).includes('PRIVATE KEY') || kind.includes('private key')) {
    throw new Failure(EXIT.usage, `${file} holds a private key; give the certificate alone`, { detail: `It is ${kind}` })
  }
  const certificates = await readCertificateFile(file)
  if (count === 'one' && certificates.length > 1) {
    throw new Failure(EXIT.failed, `${file} holds ${certificates.length} certificates`, { remedy: 'Give the one that is meant, alone' })
  }
  return certificates.map(({ raw }) => encodePem('CERTIFICATE', raw)).join('')
}

function notACertificate (file: string, bytes: Buffer, which = 'it', error?: unknown): Failure {
  const kind = kindOf(bytes)
  const isDamaged = error !== undefined && /^a certificate(?: and a private key)? in (?:PEM|DER)$/.test(kind)
  const detail = isDamaged ? `${which === 'it' ? 'It is a certificate that' : which} is damaged` : `It is ${kind}`
  return new Failure(EXIT.failed, `${file} is not a certificate`, { detail, remedy: 'Give a certificate in PEM or DER' }, error)
}
