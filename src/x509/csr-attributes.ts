import { der, derOid, derSetOf } from './der-writer.ts'

const EC_KEY = '1.2.840.10045.2.1'

/** The curve, and the signature that goes with a key on it. */
const CURVES: Readonly<Record<string, { curve: string, signature: string }>> = {
  'EC-P256': { curve: '1.2.840.10045.3.1.7', signature: '1.2.840.10045.4.3.2' },
  'EC-P384': { curve: '1.3.132.0.34', signature: '1.2.840.10045.4.3.3' },
  'EC-P521': { curve: '1.3.132.0.35', signature: '1.2.840.10045.4.3.4' }
}

/**
 * What a CSR must be like, in DER, where only keys on one curve are taken: an attribute with the curve, and the signature algorithm.
 * Undefined where there is a choice, because a list of several means that all are wanted. Never asks for a challenge password: behind
 * a balancer its `tls-unique` is of another connection.
 * RFC 7030, section 4.5.2; RFC 9908, section 3.2.
 */
export function csrAttributes (keyTypes: readonly string[]): Buffer | undefined {
  const [only, ...others] = keyTypes
  const wanted = only === undefined || others.length > 0 ? undefined : CURVES[only]
  return wanted && der(0x30, der(0x30, derOid(EC_KEY), derSetOf(0x31, [derOid(wanted.curve)])), derOid(wanted.signature))
}
