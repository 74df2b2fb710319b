// What checking a CSR costs above the least that anybody must do: importing its key from PEM and verifying its signature.
import { type KeyObject, createHash, createPublicKey, verify } from 'node:crypto'
import 'reflect-metadata'
import * as x509 from '@peculiar/x509'
import { checkCsr } from '../../src/x509/csr.ts'
import { readDer } from '../../src/x509/der.ts'
import { type Result, cpuMs, paired } from './harness.ts'

interface Sample {
  readonly serialNumber: string
  readonly pem: string
  readonly keyPem: string
  readonly info: Buffer
  readonly signature: Buffer
}

const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const RSA = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', publicExponent: new Uint8Array([1, 0, 1]), modulusLength: 2048 }

export async function csrChecks ({ rounds, scale }: { rounds: number, scale: number }): Promise<Result[]> {
  const results: Result[] = []
  for (const [name, algorithm, keys] of [['P-256', EC, 50], ['RSA-2048', RSA, 10]] as const) {
    const samples: Sample[] = []
    for (let n = 0; n < keys; n++) samples.push(await sample(`sn-${n}`, algorithm))
    const times = Math.ceil(1_000 * scale / keys)
    const repeat = (work: (sample: Sample) => unknown) => async () => await cpuMs(() => {
      for (let n = 0; n < times; n++) for (const each of samples) work(each)
    })
    const goal = { what: `CSR checks a second, ${name}`, against: 'node:crypto: key from PEM, verification', atLeast: 0.85 }
    results.push(await paired(goal, rounds, repeat(each => checkCsr(each.pem, each)), repeat(bare)))
  }
  return results
}

function bare ({ keyPem, info, signature }: Sample): void {
  const key: KeyObject = createPublicKey(keyPem)
  if (!verify('sha256', info, key, signature)) throw new Error('a signature of our own does not verify')
}

async function sample (serialNumber: string, algorithm: typeof EC | typeof RSA): Promise<Sample> {
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ name: `CN=${serialNumber}`, keys, signingAlgorithm: algorithm })
  const [info, , signature] = readDer(Buffer.from(request.rawData)).children
  const pem = request.toString('pem')
  const keyPem = createPublicKey({ key: Buffer.from(request.publicKey.rawData), format: 'der', type: 'spki' }).export({ type: 'spki', format: 'pem' }).toString()
  if (checkCsr(pem, { serialNumber }).publicKeyFingerprint !== createHash('sha256').update(Buffer.from(request.publicKey.rawData)).digest('hex')) throw new Error('another key')
  return { serialNumber, pem, keyPem, info: info!.bytes, signature: signature!.content.subarray(1) }
}
