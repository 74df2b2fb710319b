import { readFile } from 'node:fs/promises'
import { TAG } from '../x509/der.ts'
import { csrPemIn } from '../x509/csr.ts'
import { encodePem } from '../x509/pem.ts'
import { EXIT, Failure, messageOf } from './failure.ts'

/**
 * The CSR in a file, as PEM in one form: the file holds PEM with any text around it, in UTF-8 or UTF-16, or DER. The request itself is for
 * the service to judge. Throws a `Failure` that names the file and says what is wrong with it.
 */
export async function readCsr (file: string): Promise<string> {
  const bytes = await readFile(file).catch(error => {
    throw new Failure(EXIT.failed, `cannot read ${file}`, { detail: messageOf(error) }, error)
  })
  try {
    return csrPemIn(isDer(bytes) ? encodePem('CERTIFICATE REQUEST', bytes) : textOf(bytes))
  } catch (error) {
    const remedy = `Put the certificate signing request into ${file}, in PEM or DER`
    throw new Failure(EXIT.failed, `${file} does not hold one certificate signing request`, { detail: messageOf(error), remedy }, error)
  }
}

/** A request is longer than 127 bytes, so that its second byte is no character of a text. */
function isDer ([tag, length = 0]: Uint8Array): boolean {
  return tag === TAG.sequence && length > 0x80
}

/** PowerShell writes UTF-16 by default. */
function textOf (bytes: Buffer): string {
  const [first, second] = bytes
  if ((first === 0xff && second === 0xfe) || (first !== 0 && second === 0)) return new TextDecoder('utf-16le').decode(bytes)
  if ((first === 0xfe && second === 0xff) || (first === 0 && second !== 0)) return new TextDecoder('utf-16be').decode(bytes)
  return bytes.toString('utf8')
}
