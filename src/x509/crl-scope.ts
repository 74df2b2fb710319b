import type { DerValue } from './der.ts'
import { CrlError } from './refusals.ts'
import { ShapeError, membersOf } from './shape.ts'
import { urlsOf } from './general-names.ts'
import type { Certificate } from './strict-certificate.ts'

/** Which certificates of its issuer a list is complete for. RFC 5280, 5.2.5. */
export interface CrlScope {
  /** The addresses of the distribution point that the list is of; undefined where it names none, and is about all of them. */
  readonly urls?: readonly string[]
  readonly only?: 'user' | 'ca'
}

const [POINT, USER_CERTS, CA_CERTS, SOME_REASONS, INDIRECT, ATTRIBUTE_CERTS] = [0xa0, 0x81, 0x82, 0x83, 0x84, 0x85]
const FULL_NAME = 0xa0

/**
 * The scope in an issuingDistributionPoint.
 * @throws {CrlError} `crl-is-partial` for a scope that is complete for no certificate. @throws {ShapeError} RFC 5280, 5.2.5.
 */
export function scopeOf (value: DerValue): CrlScope {
  const members = membersOf(value, 'it')
  if (members.length === 0) throw new CrlError('crl-is-partial', 'its issuingDistributionPoint is empty')
  if (members.some(({ tag }, at) => at > 0 && (tag & 0x1f) <= (members[at - 1]!.tag & 0x1f))) throw new ShapeError('its members are not in order')
  let scope: CrlScope = {}
  for (const member of members) {
    switch (member.tag) {
      case POINT: scope = { ...scope, urls: pointOf(member) }; break
      case USER_CERTS: if (isTrue(member)) scope = { ...scope, only: 'user' }; break
      case CA_CERTS:
        if (isTrue(member) && scope.only) throw new ShapeError('it is of users alone and of CAs alone')
        if (isTrue(member)) scope = { ...scope, only: 'ca' }
        break
      case SOME_REASONS: throw new CrlError('crl-is-partial', 'it is of some reasons alone')
      case INDIRECT: if (isTrue(member)) throw new CrlError('crl-is-partial', 'it is an indirect CRL, of other issuers too'); break
      case ATTRIBUTE_CERTS: if (isTrue(member)) throw new CrlError('crl-is-partial', 'it is of attribute certificates alone'); break
      default: throw new ShapeError('it has an unknown member')
    }
  }
  return scope
}

/** Why a list of this scope, set by that address, does not say all about a certificate; undefined where it does. */
export function gapOf ({ urls, only }: CrlScope, { extensions }: Certificate, setUrl: string): string | undefined {
  if (only && (only === 'ca') !== extensions.isCa) return only === 'ca' ? 'it is of CA certificates alone' : 'it is not of CA certificates'
  if (!urls) return undefined
  // One of several lists of a CA has the address that the certificate names. Where the certificate names none, the operator has chosen.
  const wanted = extensions.crlUrls ?? [setUrl]
  if (wanted.some(url => urls.some(other => isSame(url, other)))) return undefined
  return `it is of ${shown(urls)}; ${extensions.crlUrls ? `the certificate names ${shown(wanted)}` : 'set that address'}`
}

function pointOf ({ children: [name, ...more] }: DerValue): readonly string[] {
  if (name === undefined || more.length > 0) throw new ShapeError('its distribution point is malformed')
  const urls = name.tag === FULL_NAME ? urlsOf(name.children) : []
  if (urls.length === 0) throw new CrlError('crl-is-partial', 'its distribution point has no URL')
  return urls
}

/** A BOOLEAN behind an implicit tag. An explicit FALSE is let through, as in all extensions. */
function isTrue ({ content }: DerValue): boolean {
  if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff)) throw new ShapeError('a BOOLEAN in it is malformed')
  return content[0] === 0xff
}

function isSame (one: string, other: string): boolean {
  return one === other || (URL.canParse(one) && URL.canParse(other) && new URL(one).href === new URL(other).href)
}

/** Of addresses that a CA wrote, which may be anything; they stand in certificates for all to read. */
function shown (urls: readonly string[]): string {
  return urls.map(url => url.replace(/[^!-~]/g, '?').slice(0, 100)).slice(0, 2).join(' or ') || 'none'
}
