// Revocation lists that no tool would write, signed all the same. Shares no code with src.
import { NOW, DAY, extension, sealed, timeOf, type Signer } from './handmade-certificate.ts'
import { ECDSA_SHA256, hex, pemOf, tlv } from './handmade.ts'

export interface CrlParts {
  /** Whole TLVs; `null` leaves the version, nextUpdate or the entries out. */
  version?: Buffer | null
  algorithm?: Buffer
  innerAlgorithm?: Buffer
  issuer?: Buffer
  thisUpdate?: Buffer
  nextUpdate?: Buffer | null
  entries?: readonly Buffer[] | null
  /** Of the list; none gives no list of extensions. */
  extensions?: readonly Buffer[]
  tail?: readonly Buffer[]
  digest?: string | null
}

export const LATER = timeOf(NOW + DAY)

export function crlDer ({ key, subject }: Signer, parts: CrlParts = {}): Buffer {
  const { version = tlv(0x02, hex('01')), algorithm = ECDSA_SHA256, innerAlgorithm = algorithm, issuer = subject } = parts
  const { thisUpdate = timeOf(NOW), nextUpdate = LATER, entries = [], extensions = [], tail = [], digest } = parts
  const list = entries && entries.length > 0 ? [tlv(0x30, ...entries)] : []
  const end = extensions.length > 0 ? [tlv(0xa0, tlv(0x30, ...extensions))] : []
  const dates = nextUpdate ? [thisUpdate, nextUpdate] : [thisUpdate]
  const tbs = tlv(0x30, ...version ? [version] : [], innerAlgorithm, issuer, ...dates, ...list, ...end, ...tail)
  return sealed(tbs, key, { algorithm, ...(digest !== undefined && { digest }) })
}

export function crlPem (signer: Signer, parts: CrlParts = {}): string {
  return pemOf(crlDer(signer, parts), 'X509 CRL')
}

/** One revoked certificate; `serial` is the content of the INTEGER in hex. */
export function entry (serial: string, extensions: readonly Buffer[] = [], date = timeOf(NOW - DAY)): Buffer {
  return tlv(0x30, tlv(0x02, hex(serial)), date, ...extensions.length > 0 ? [tlv(0x30, ...extensions)] : [])
}

export function reason (number: number): Buffer {
  return extension('551d15', tlv(0x0a, Buffer.from([number])))
}
