import { X509Certificate } from 'node:crypto'
import { rootCertificates } from 'node:tls'

/** The roots that AWS IoT's servers chain to (AWS IoT developer guide, "Server authentication"): RSA 2048 and ECC P-256. */
const AMAZON_ROOTS = ['Amazon Root CA 1', 'Amazon Root CA 3']

/** The PEM that devices need to verify AWS IoT's servers, taken from the roots that Node ships, so nothing is downloaded. */
export function amazonRootCas (): string {
  const found = rootCertificates.filter(pem => AMAZON_ROOTS.includes(commonNameOf(pem)))
  if (found.length !== AMAZON_ROOTS.length) throw new Error('this Node.js does not ship the Amazon roots; set ROOT_CA_FILE')
  return found.map(pem => `${pem.trim()}\n`).join('')
}

function commonNameOf (pem: string): string {
  return /^CN=(.*)$/m.exec(new X509Certificate(pem).subject)?.[1] ?? ''
}
