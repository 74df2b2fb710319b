// Keys and requests by the thousand, made in this process.
import 'reflect-metadata'
import { KeyObject } from 'node:crypto'
import * as x509 from '@peculiar/x509'
import type { Device } from './service-process.ts'

const KEY = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }

export interface KeyAndRequest { readonly csr: string, readonly body: string, readonly publicKey: Buffer, readonly privateKey: KeyObject }

/** A fresh key of a device: its CSR, the body of its request, and the SubjectPublicKeyInfo that its certificate must carry. */
export async function keyAndRequest (device: Device): Promise<KeyAndRequest> {
  const keys = await crypto.subtle.generateKey(KEY, true, ['sign', 'verify'])
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ name: `CN=${device.serialNumber}`, keys, signingAlgorithm: KEY })
  const csr = request.toString('pem')
  const body = JSON.stringify({ ...device, certificateSigningRequest: csr })
  return { csr, body, publicKey: Buffer.from(request.publicKey.rawData), privateKey: KeyObject.from(keys.privateKey) }
}
