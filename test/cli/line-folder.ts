// A line's folder for tests: requests in, devices and manifest out.
import { X509Certificate, createHash, createPrivateKey } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { BatchService } from './batch-service.ts'
import { cvm } from './command.ts'
import type { Surroundings } from './command.ts'

const HEADER = 'serialNumber,status,certificateId,code,detail,certificateSha256,privateKeySha256,rootCaSha256,deviceSha256'
export const CERTIFICATE = 'iot-certificate.pem.crt'
export const KEY = 'iot-private.pem.key'

export const csvOf = (count: number) =>
  `serialNumber,registrationToken\n${Array.from({ length: count }, (_, index) => `sn-${index + 1},token-of-${index + 1}`).join('\n')}\n`

/** `cvm line vend` of the folder's requests into its `out`. */
export function run (service: BatchService, folder: string, args: string[] = ['--generate-keys'], surroundings: Surroundings = {}) {
  const env = { CVM_API_KEY: 'cvm_key', CVM_URL: service.url.href, ...surroundings.env }
  return cvm(['line', 'vend', join(folder, 'requests.csv'), '--out', join(folder, 'out'), ...args], { ...surroundings, env })
}

export const read = (...path: string[]) => readFileSync(join(...path), 'utf8')
export const sha256 = (...path: string[]) => createHash('sha256').update(readFileSync(join(...path))).digest('hex')

/** The rows of the manifest, without quotes that would need a parser. */
export function manifest (folder: string): Record<string, string>[] {
  const [header, ...rows] = read(folder, 'out', 'manifest.csv').trimEnd().split('\n')
  if (header !== HEADER) throw new Error(`header is ${header}`)
  return rows.map(row => Object.fromEntries(row.split(',').map((value, index) => [HEADER.split(',')[index], value])))
}

/** Every device has the one certificate that was vended for it, its own key, and a row of the manifest that says so. */
export function checkDevices (t: Test, service: BatchService, folder: string, count: number): void {
  const rows = new Map(manifest(folder).map(row => [row['serialNumber'], row]))
  t.equal(service.vended.size, count)
  t.equal(manifest(folder).length, count, 'one row for each')
  for (const [serialNumber, { certificatePem, certificateId }] of service.vended) {
    const device = join(folder, 'out', serialNumber)
    const certificate = new X509Certificate(read(device, CERTIFICATE))
    t.equal(read(device, CERTIFICATE), certificatePem)
    t.ok(certificate.checkPrivateKey(createPrivateKey(read(device, KEY))))
    const hashes = { certificateSha256: sha256(device, CERTIFICATE), privateKeySha256: sha256(device, KEY) }
    t.match(rows.get(serialNumber), { certificateId: String(certificateId), ...hashes })
    t.strictSame(readdirSync(device).sort(), [CERTIFICATE, 'iot-device.json', KEY, 'iot-root-ca.crt'].sort(), 'nothing is left over')
  }
}
