import { X509Certificate } from 'node:crypto'
import { content, elements } from './der.ts'
import type { Variables } from './policy-pattern.ts'

const ATTRIBUTES: ReadonlyMap<string, string> = new Map([
  ['060355042e', 'DistinguishedNameQualifier'], ['0603550406', 'Country'], ['060355040a', 'Organization'],
  ['060355040b', 'OrganizationalUnit'], ['0603550408', 'State'], ['0603550403', 'CommonName'], ['0603550405', 'SerialNumber'],
  ['060355040c', 'Title'], ['0603550404', 'Surname'], ['060355042a', 'GivenName'], ['060355042b', 'Initials'],
  ['0603550441', 'Pseudonym'], ['060355042c', 'GenerationQualifier']
])
/** Extensions of alternative names; a directory name has no text form that AWS documents, so it is left out. */
const ALTERNATIVES: ReadonlyMap<string, string> = new Map([['0603551d11', 'Subject'], ['0603551d12', 'Issuer']])
const ALTERNATIVE_KINDS: ReadonlyMap<number, string> = new Map([
  [0x81, 'RFC822Name'], [0x82, 'DNSName'], [0x86, 'UniformResourceIdentifier'], [0x87, 'IPAddress']
])
const MAX_VALUES = 5

/**
 * The policy variables of a certificate (aws-facts 2.5): of several values the first under the plain name, the next ones under `.1`,
 * `.2` and so on, all of them under `.List`, which is of use in conditions.
 */
export function certificateVariables (pem: string): Variables {
  const certificate = new X509Certificate(pem)
  const variables = new Map<string, string | readonly string[]>([['iot:Certificate.SerialNumber', certificate.serialNumber]])
  for (const [name, values] of readable(certificate.raw)) {
    const kept = values.slice(0, MAX_VALUES)
    for (const [at, value] of kept.entries()) variables.set(at === 0 ? name : `${name}.${at}`, value)
    variables.set(`${name}.List`, kept)
  }
  return variables.set('iot:Certificate.AvailableKeys', [...variables.keys()].filter(name => !/\.(\d|List)$/.test(name)))
}

/** The names; none of a certificate that OpenSSL takes but that is not DER throughout, whose policies then allow nothing by them. */
function readable (certificate: Buffer): Map<string, string[]> {
  try {
    return namesIn(certificate)
  } catch (error) {
    if (error instanceof RangeError) return new Map()
    throw error
  }
}

function namesIn (certificate: Buffer): Map<string, string[]> {
  const found = new Map<string, string[]>()
  const add = (name: string, value: string): void => {
    found.set(`iot:Certificate.${name}`, [...found.get(`iot:Certificate.${name}`) ?? [], value])
  }
  // RFC 5280: the version, which one of the first kind does not state; then serial, algorithm, issuer, validity, subject.
  const fields = elements(content(inner(certificate)))
  const [, , issuer, , subject] = fields.slice(fields[0]?.[0] === 0xa0 ? 1 : 0)
  for (const [whose, name] of [['Issuer', issuer], ['Subject', subject]] as const) {
    for (const part of elements(name === undefined ? Buffer.alloc(0) : content(name)).flatMap(set => elements(content(set)))) {
      const [type, value] = elements(content(part))
      const attribute = ATTRIBUTES.get(type?.toString('hex') ?? '')
      if (attribute !== undefined && value !== undefined) add(`${whose}.${attribute}`, text(value))
    }
  }
  for (const extension of extensionsIn(fields)) {
    const parts = elements(content(extension))
    const whose = ALTERNATIVES.get(parts[0]?.toString('hex') ?? '')
    const value = parts.at(-1)
    if (whose === undefined || value === undefined) continue
    for (const name of elements(content(inner(value)))) {
      const kind = ALTERNATIVE_KINDS.get(name[0] ?? 0)
      if (kind !== undefined) add(`${whose}.AlternativeName.${kind}`, kind === 'IPAddress' ? address(content(name)) : content(name).toString('latin1'))
    }
  }
  return found
}

/** The first element inside another. */
function inner (element: Buffer): Buffer {
  return elements(content(element))[0] ?? Buffer.alloc(2)
}

function extensionsIn (fields: readonly Buffer[]): Buffer[] {
  const wrapped = fields.find(field => field[0] === 0xa3)
  return wrapped === undefined ? [] : elements(content(inner(wrapped)))
}

function text (value: Buffer): string {
  const bytes = content(value)
  if (value[0] === 0x1e) return Buffer.from(bytes).swap16().toString('utf16le') // BMPString
  return bytes.toString(value[0] === 0x0c ? 'utf8' : 'latin1')
}

function address (bytes: Buffer): string {
  if (bytes.length === 4) return [...bytes].join('.')
  return (bytes.toString('hex').match(/.{4}/g) ?? []).map(group => Number.parseInt(group, 16).toString(16)).join(':')
}
