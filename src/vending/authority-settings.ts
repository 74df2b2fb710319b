import { isDeepStrictEqual } from 'node:util'
import { CvmError } from '../errors.ts'
import type { Certificate } from '../x509/strict-certificate.ts'
import { type AuthoritySettings, DEFAULT_SETTINGS } from './authority.ts'
import type { AuthoritySettingsStore, KeptSettings } from './authority-registry.ts'
import { checkCrls, checkIntermediates } from './authority-rules.ts'
import type { Products } from './product.ts'

/** Settings where they are given; one that is there as `undefined` is set back to its default. */
export type GivenSettings = Partial<{ [K in keyof AuthoritySettings]: AuthoritySettings[K] | undefined }>

interface SettingsDeps {
  products: Products
  /** Whether CRLs may be files. */
  hasCrlFolder: boolean
  now: () => number
}

const NAMES = ['intermediatesPem', 'crls', 'whenCrlUnavailable', 'products'] as const satisfies readonly (keyof AuthoritySettings)[]

/** The names of the settings that are given. */
export function namesOf (given: GivenSettings): (keyof AuthoritySettings)[] {
  return NAMES.filter(name => name in given)
}

/**
 * Settings with what is given put into them, in the form in which they are kept. Only what is given is judged: what is kept may have
 * been overtaken by time or by the products file. Raises `CvmError`: `authority-rejected`, `unknown-product`.
 */
export function withGiven (
  settings: AuthoritySettings, given: GivenSettings, ca: () => Certificate, { products, hasCrlFolder, now }: SettingsDeps
): AuthoritySettings {
  checkCrls(given.crls ?? [], hasCrlFolder)
  const unknown = given.products?.find(name => !products.has(name))
  if (unknown !== undefined) throw new CvmError('unknown-product', { detail: `There is no product ${unknown}.` })
  const pem = given.intermediatesPem
  const judged = { ...given, ...pem !== undefined && { intermediatesPem: checkIntermediates(pem, ca(), now()) } }
  const values = NAMES.map(name => [name, name in given ? judged[name] ?? DEFAULT_SETTINGS[name] : settings[name]])
  return Object.fromEntries(values) as AuthoritySettings
}

/** The names of the settings in which two differ. */
export function differences (one: AuthoritySettings, other: AuthoritySettings): (keyof AuthoritySettings)[] {
  return NAMES.filter(name => !isDeepStrictEqual(one[name], other[name]))
}

/** The settings of one authority as they stand. */
export async function settingsOf (caCertificateId: string, settings: Pick<AuthoritySettingsStore, 'find'>): Promise<KeptSettings> {
  const kept = (await settings.find([caCertificateId])).get(caCertificateId)
  if (!kept) throw new Error('the settings of each authority are found')
  return kept
}
