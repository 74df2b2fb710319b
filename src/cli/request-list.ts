import { stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { readCsr } from './csr-file.ts'
import { EXIT, Failure } from './failure.ts'
import { faulty, readRecords } from './record-file.ts'
import type { Listed } from './record-file.ts'

/** A device to vend, as its file says; `line` counts from 1, `csrFile` is a path to read. */
export type VendRequest = Listed<typeof NAMES[number]> & { readonly registrationToken: string }

const NAMES = ['serialNumber', 'registrationToken', 'csrFile', 'certificateSigningRequest', 'product'] as const

// A serial number is the name of its folder: what the service would refuse must not lead out of --out.
const SERIAL_NUMBER = /^[A-Za-z0-9:_-]{1,128}$/

/** The requests of a CSV or NDJSON file, one at a time. Throws a `Failure` that names the line and never quotes it. */
export async function * readRequests (file: string): AsyncGenerator<VendRequest> {
  for await (const record of readRecords(file, NAMES)) {
    const { line, serialNumber, registrationToken, csrFile, certificateSigningRequest } = record
    const wrong = (what: string) => faulty(`${file} line ${line}`, what, NAMES)
    if (!SERIAL_NUMBER.test(serialNumber)) throw wrong('has a serial number that is not 1 to 128 of A-Z a-z 0-9 : _ -')
    if (registrationToken === undefined) throw wrong('has no registrationToken')
    if (csrFile !== undefined && certificateSigningRequest !== undefined) throw wrong('has both csrFile and certificateSigningRequest')
    yield { ...record, registrationToken, ...csrFile !== undefined && { csrFile: resolve(dirname(file), csrFile) } }
  }
}

/**
 * Reads the whole list once, so that a fault in it is found before anything is sent or made; returns how many requests it has. Where keys
 * are not made for them, every line must have its CSR. Throws a `Failure`.
 */
export async function checkRequests (file: string, needsCsr: boolean): Promise<number> {
  const lines = new Map<string, number>()
  for await (const { line, serialNumber, csrFile, certificateSigningRequest } of readRequests(file)) {
    const name = folderKey(serialNumber)
    const first = lines.get(name)
    if (first !== undefined) throw faulty(`${file} line ${line}`, `has the serial number of line ${first}`, NAMES)
    lines.set(name, line)
    if (csrFile !== undefined) {
      const isFile = await stat(csrFile).then(facts => facts.isFile(), () => false)
      if (!isFile) throw faulty(`${file} line ${line}`, 'names a csrFile that is not there', NAMES)
      await readCsr(csrFile)
    } else if (needsCsr && certificateSigningRequest === undefined) {
      const remedy = 'Give csrFile or certificateSigningRequest; or --generate-keys to make the keys here, or --keys-by-aws to have AWS IoT make them'
      throw new Failure(EXIT.usage, `${file} line ${line} has no certificate signing request`, { remedy })
    }
  }
  return lines.size
}

// Where upper and lower case name the same folder, two devices would share a key.
function folderKey (serialNumber: string): string {
  return ['darwin', 'win32'].includes(process.platform) ? serialNumber.toLowerCase() : serialNumber
}
