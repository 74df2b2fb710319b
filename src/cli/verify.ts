import type { X509Certificate } from 'node:crypto'
import { Command } from 'commander'
import { readCertificate } from '../x509/certificate.ts'
import type { CertificateFacts } from '../x509/certificate.ts'
import { encodePem } from '../x509/pem.ts'
import { readCertificateFile } from './certificate-file.ts'
import { readBytes } from './device-folder.ts'
import { EXIT, Failure, messageOf, printable } from './failure.ts'
import { privateKeyOf } from './private-key.ts'

/** One line of the report; `holds` is left out where there is nothing to judge. */
interface Finding { readonly name: string, readonly text: string, readonly holds?: boolean }

const DAY_MS = 86_400_000

/** `cvm verify`: says what a certificate is and whether it holds. Its action throws `Failure` (1) when anything does not. */
export function verifyCommand (): Command {
  return new Command('verify')
    .description('show a certificate and check its dates, its key and its issuer')
    .argument('<certificate>', 'PEM or DER file')
    .option('--ca <file>', 'PEM or DER with the authority that is said to have issued it')
    .option('--key <file>', 'the private key that should belong to it')
    .action(async (file: string, options: { ca?: string, key?: string }) => {
      const [certificate, ...others] = await readCertificateFile(file) as [X509Certificate, ...X509Certificate[]]
      if (others.length > 0) process.stderr.write(`${file} holds ${others.length + 1} certificates; this is the first\n`)
      const facts = legible(() => readCertificate(encodePem('CERTIFICATE', certificate.raw)), file)
      const findings = [
        ...identity(facts), validity(facts, Date.now()),
        ...(options.key === undefined ? [] : [keyMatch(certificate, await readBytes(options.key), options.key)]),
        chain(certificate, options.ca === undefined ? undefined : await readCertificateFile(options.ca), Date.now())
      ]
      for (const { name, text, holds } of findings) {
        const verdict = holds === undefined ? '' : holds ? 'ok: ' : 'FAILED: '
        process.stdout.write(`${name.padEnd(16)}${verdict}${printable(text)}\n`)
      }
      const broken = findings.filter(({ holds }) => holds === false).map(({ name }) => name)
      if (broken.length > 0) throw new Failure(EXIT.failed, `${file} does not hold: ${broken.join(', ')}`)
    })
}

function identity (facts: CertificateFacts): Finding[] {
  return [
    { name: 'subject', text: facts.subject || '(none)' },
    { name: 'issuer', text: facts.issuer || '(none)' },
    { name: 'serial number', text: facts.serialNumber },
    { name: 'certificate id', text: facts.certificateId },
    { name: 'key', text: `${facts.keyType}, public key SHA-256 ${facts.publicKeyFingerprint}` }
  ]
}

function validity ({ notBefore, notAfter }: CertificateFacts, now: number): Finding {
  const span = `${iso(notBefore)} to ${iso(notAfter)}`
  if (now < notBefore) return { name: 'validity', text: `${span}, not valid yet`, holds: false }
  if (now > notAfter) return { name: 'validity', text: `${span}, expired ${Math.ceil((now - notAfter) / DAY_MS)} days ago`, holds: false }
  return { name: 'validity', text: `${span}, ${Math.floor((notAfter - now) / DAY_MS)} days left`, holds: true }
}

function keyMatch (certificate: X509Certificate, key: Buffer, file: string): Finding {
  const holds = certificate.checkPrivateKey(privateKeyOf(key, file))
  return { name: 'private key', text: holds ? `${file} belongs to it` : `${file} belongs to another certificate`, holds }
}

/** A name alone proves nothing, anybody can write it: the issuer's key must have signed, and the issuer must be a valid authority. */
function chain (certificate: X509Certificate, issuers: readonly X509Certificate[] | undefined, now: number): Finding {
  if (issuers === undefined) {
    return { name: 'chain', text: 'not checked. AWS does not publish the chain of its device certificates: only AWS IoT can check it' }
  }
  const named = issuers.filter(issuer => certificate.checkIssued(issuer))
  const signer = named.find(issuer => certificate.verify(issuer.publicKey))
  if (signer !== undefined) return { name: 'chain', ...authority(signer, now) }
  const names = issuers.map(issuer => oneLine(issuer.subject)).join(' or ')
  const forged = named.length > 0 ? ': it names that issuer, but the issuer\'s key did not sign it' : ''
  return { name: 'chain', text: `not issued by ${names}${forged}`, holds: false }
}

function authority (signer: X509Certificate, now: number): Omit<Finding, 'name'> {
  const name = oneLine(signer.subject)
  if (!signer.ca) return { text: `signed by ${name}, which is no certificate authority`, holds: false }
  if (now < Date.parse(signer.validFrom) || now > Date.parse(signer.validTo)) {
    return { text: `issued by ${name}, whose own certificate is not valid now`, holds: false }
  }
  return { text: `issued by ${name}: name and signature`, holds: true }
}

function legible<T> (read: () => T, file: string): T {
  try {
    return read()
  } catch (error) {
    throw new Failure(EXIT.failed, `${file} is not a certificate`, { detail: messageOf(error) }, error)
  }
}

function oneLine (name: string | undefined): string {
  return name?.split('\n').join(', ') || '(no name)'
}

function iso (ms: number): string {
  return new Date(ms).toISOString().replace('.000Z', 'Z')
}
