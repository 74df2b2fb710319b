import { csrPemIn } from '../x509/csr.ts'
import { encodePem } from '../x509/pem.ts'
import { readBytes } from './device-folder.ts'
import { EXIT, Failure, messageOf } from './failure.ts'
import { isDer, kindOf, textOf } from './file-kind.ts'

/**
 * The CSR in a file, as PEM in one form: the file holds PEM with any text around it, in UTF-8 or UTF-16, or DER. The request itself is for
 * the service to judge. Throws a `Failure` that names the file and says what is wrong with it.
 */
export async function readCsr (file: string): Promise<string> {
  const bytes = await readBytes(file)
  const kind = kindOf(bytes)
  // DER that is nothing else may be a request that a tool wrote in a way of its own.
  const isOther = !kind.includes('certificate signing request') && !kind.startsWith('DER, but')
  try {
    if (isOther && isDer(bytes)) throw new Error(`It is ${kind}`)
    return csrPemIn(isDer(bytes) ? encodePem('CERTIFICATE REQUEST', bytes) : textOf(bytes))
  } catch (error) {
    const detail = isOther ? `It is ${kind}` : messageOf(error)
    const remedy = `Put the certificate signing request into ${file}, in PEM or DER`
    throw new Failure(EXIT.failed, `${file} does not hold one certificate signing request`, { detail, remedy }, error)
  }
}
