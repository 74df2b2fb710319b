// A stand-in for Terraform's provider hashicorp/tls, for machines that cannot get it: as much of its schema as infra/device-certificates
// uses, and real keys and certificates, by openssl. It was written from the provider's documentation and shares nothing with it.
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type Attribute, openssl, type Resource, servePlugin, type Values } from './plugin-protocol.ts'

const required: Attribute = { type: 'string', required: true }
const secret: Attribute = { ...required, sensitive: true }
const computed: Attribute = { type: 'string', computed: true }
const SUBJECT = { subject: Object.fromEntries(['common_name', 'organization', 'organizational_unit', 'country', 'serial_number'].map(name => [name, { type: 'string', optional: true } as Attribute])) }
const CERTIFICATE: Record<string, Attribute> = {
  id: computed,
  cert_pem: computed,
  validity_period_hours: { type: 'number', required: true },
  allowed_uses: { type: ['list', 'string'], required: true },
  is_ca_certificate: { type: 'bool', optional: true, computed: true }
}
const KEY_USES: Record<string, string> = { digital_signature: 'digitalSignature', cert_signing: 'keyCertSign', crl_signing: 'cRLSign' }
const EXTENDED_USES: Record<string, string> = { client_auth: 'clientAuth' }
const NAMES: Record<string, string> = { country: 'C', organization: 'O', organizational_unit: 'OU', common_name: 'CN', serial_number: 'serialNumber' }

const resources: Record<string, Resource> = {
  tls_private_key: {
    attributes: {
      id: computed,
      algorithm: required,
      rsa_bits: { type: 'number', optional: true, computed: true },
      ecdsa_curve: { type: 'string', optional: true, computed: true },
      private_key_pem: { ...computed, sensitive: true },
      public_key_pem: computed
    },
    make: given => {
      const { bits, curve } = { bits: given['rsa_bits'] as number ?? 2048, curve: given['ecdsa_curve'] as string ?? 'P224' }
      const isRsa = given['algorithm'] === 'RSA'
      const { privateKey } = isRsa ? generateKeyPairSync('rsa', { modulusLength: bits }) : generateKeyPairSync('ec', { namedCurve: curve.replace('P', 'P-') })
      return {
        rsa_bits: bits,
        ecdsa_curve: curve,
        private_key_pem: privateKey.export({ format: 'pem', type: isRsa ? 'pkcs1' : 'sec1' }),
        public_key_pem: createPublicKey(privateKey).export({ format: 'pem', type: 'spki' })
      }
    }
  },
  tls_self_signed_cert: {
    attributes: { ...CERTIFICATE, private_key_pem: secret },
    blocks: SUBJECT,
    make: given => certificate(given, { csr: csr(given), key: given['private_key_pem'] }, ['-signkey', 'key'])
  },
  tls_cert_request: {
    attributes: { id: computed, private_key_pem: secret, cert_request_pem: computed },
    blocks: SUBJECT,
    make: given => ({ cert_request_pem: csr(given) })
  },
  tls_locally_signed_cert: {
    attributes: { ...CERTIFICATE, cert_request_pem: required, ca_private_key_pem: secret, ca_cert_pem: required },
    make: given => certificate(given, { csr: given['cert_request_pem'], ca: given['ca_cert_pem'], key: given['ca_private_key_pem'] }, ['-CA', 'ca', '-CAkey', 'key'])
  }
}

function csr ({ private_key_pem: key, subject }: Values): string {
  const [names = {}] = subject as Record<string, string | null>[]
  const subjects = Object.entries(NAMES).filter(([name]) => names[name]).map(([name, short]) => `/${short}=${names[name]}`)
  return opensslWith({ key }, ['req', '-new', '-key', 'key', '-subj', subjects.join('')])
}

function certificate (given: Values, files: Values, signer: string[]): Values {
  const isCa = given['is_ca_certificate'] === true
  const uses = (names: Record<string, string>) => (given['allowed_uses'] as string[]).map(use => names[use]).filter(Boolean).join()
  const ext = [
    `basicConstraints=critical,CA:${isCa ? 'TRUE' : 'FALSE'}`,
    'subjectKeyIdentifier=hash',
    'authorityKeyIdentifier=keyid',
    ...[['keyUsage=critical,', uses(KEY_USES)], ['extendedKeyUsage=', uses(EXTENDED_USES)]].filter(([, named]) => named).map(pair => pair.join(''))
  ].join('\n')
  // Whole days are the least that openssl knows; the provider would count hours.
  const days = String(Math.ceil(given['validity_period_hours'] as number / 24))
  return {
    is_ca_certificate: isCa,
    cert_pem: opensslWith({ ...files, ext }, ['x509', '-req', '-in', 'csr', ...signer, '-extfile', 'ext', '-days', days])
  }
}

/** What openssl prints in a folder with these files. */
function opensslWith (files: Values, args: string[]): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'tls-provider-'))
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(path.join(folder, name), content as string, { mode: 0o600 })
    return openssl(args, folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

await servePlugin(resources)
