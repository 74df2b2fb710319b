import { type Command, Option } from 'commander'
import { readCertificatePem } from './certificate-file.ts'
import { facts } from './table.ts'

/** What can be set of an authority, as the command line says it. */
export interface SettingOptions {
  crl?: string[]
  withoutCrl?: string
  product?: string[]
  /** False for --no-intermediates, where there is such an option. */
  intermediates?: string | false
}

/** Adds the options for what can be set. */
export function withSettings (command: Command): Command {
  return command
    .option('--crl <url|file>', 'a CRL: an http(s) URL, or the name of a file in the service\'s CRL_DIR; may be given again', collect)
    .addOption(new Option('--without-crl <what>', 'what becomes of certificates while no CRL is in force').choices(['refuse', 'accept']))
    .option('--product <product>', 'a product that its certificates may be for (default: any); may be given again', collect)
    .option('--intermediates <file>', 'the CA certificates between it and its devices (PEM)')
}

/** The settings that are given, as the service takes them. Throws a `Failure`. */
export async function settingsOf ({ crl, withoutCrl, product, intermediates }: SettingOptions): Promise<Record<string, unknown>> {
  return {
    ...crl && { crls: crl },
    ...withoutCrl && { whenCrlUnavailable: withoutCrl },
    ...product && { products: product },
    ...typeof intermediates === 'string' && { intermediatesPem: await readCertificatePem(intermediates) }
  }
}

/** What an authority is after a command, and what keeps it from taking devices. */
export function told (id: unknown, authority: Record<string, unknown>): string {
  const { status, autoRegistration, crls, whenCrlUnavailable, products, mode } = authority
  const isClosed = Array.isArray(crls) && crls.length === 0 && whenCrlUnavailable !== 'accept'
  const warning = isClosed ? 'No CRL is set: no certificate of it is taken yet. Set one with --crl, or --without-crl accept.\n' : ''
  return facts([
    ['authority', id],
    ['status', status],
    ['auto-registration', autoRegistration === true ? 'on' : 'off'],
    ['mode', mode],
    ['CRLs', crls],
    ['without CRL', whenCrlUnavailable],
    ['products', products ?? 'all']
  ]) + warning
}

function collect (value: string, before: string[] = []): string[] {
  return [...before, value]
}
