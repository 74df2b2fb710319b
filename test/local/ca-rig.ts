import 'reflect-metadata'
import { createPrivateKey, KeyObject, webcrypto, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import * as aws from '@aws-sdk/client-iot'
import * as x509 from '@peculiar/x509'
import { openssl, P256 } from './rig.ts'

export interface Leaf { key: string, cert: string, chain: string, id: string }

/** A CA of openssl's making, and what it signs. */
export class CustomerCa {
  readonly cert: string
  readonly key: string

  constructor (subject = '/CN=Factory CA') {
    [this.key = '', this.cert = ''] = inFolder({}, ['k', 'c'], cwd => {
      openssl(['req', '-x509', '-newkey', ...P256, '-nodes', '-subj', subject, '-days', '30', '-keyout', 'k', '-out', 'c',
        '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'], { cwd })
    })
  }

  sign (subject: string): Leaf {
    const [key = '', cert = ''] = inFolder({ ca: this.cert, ck: this.key }, ['k', 'c'], cwd => {
      openssl(['req', '-new', '-newkey', ...P256, '-nodes', '-subj', subject, '-keyout', 'k', '-out', 'r'], { cwd })
      openssl(['x509', '-req', '-in', 'r', '-CA', 'ca', '-CAkey', 'ck', '-CAcreateserial', '-days', '1', '-out', 'c'], { cwd })
    })
    return this.#leaf(key, cert)
  }

  /** The same by @peculiar/x509, with any dates. */
  async signDated (subject: string, notBefore: Date, notAfter: Date): Promise<Leaf> {
    const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
    const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify'])
    const pkcs8 = createPrivateKey(this.key).export({ type: 'pkcs8', format: 'der' })
    const certificate = await x509.X509CertificateGenerator.create({
      subject,
      issuer: new x509.X509Certificate(this.cert).subjectName,
      notBefore,
      notAfter,
      publicKey: keys.publicKey,
      signingKey: await webcrypto.subtle.importKey('pkcs8', pkcs8, EC, false, ['sign']),
      signingAlgorithm: EC
    })
    const key = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString()
    return this.#leaf(key, `${certificate.toString('pem')}\n`)
  }

  #leaf (key: string, cert: string): Leaf {
    return { key, cert, chain: cert + this.cert, id: new X509Certificate(cert).fingerprint256.replaceAll(':', '').toLowerCase() }
  }

  /** As the CA's owner does it: the registration code signed, ACTIVE, registering automatically. The id of the CA certificate. */
  async register (iot: aws.IoTClient): Promise<string> {
    const { registrationCode } = await iot.send(new aws.GetRegistrationCodeCommand({}))
    const { certificateId = '' } = await iot.send(new aws.RegisterCACertificateCommand({
      caCertificate: this.cert,
      verificationCertificate: this.sign(`/CN=${registrationCode}`).cert,
      setAsActive: true,
      allowAutoRegistration: true
    }))
    return certificateId
  }
}

function inFolder (files: Record<string, string>, results: readonly string[], work: (cwd: string) => void): string[] {
  const cwd = mkdtempSync(path.join(tmpdir(), 'ca-'))
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(path.join(cwd, name), text)
    work(cwd)
    return results.map(name => readFileSync(path.join(cwd, name), 'utf8'))
  } finally {
    rmSync(cwd, { recursive: true })
  }
}
