import { Type } from 'typebox'
import { AUTHORITY_MODES, AUTHORITY_STATUSES, WITHOUT_CRL } from '../vending/authority.ts'
import { EXAMPLE } from './example.ts'
import { certificateArn, certificateId, notAfter, time } from './members.ts'

/** The longest PEM text that AWS IoT takes. */
const pem = (description: string) => Type.String({ minLength: 1, maxLength: 65_536, description, examples: [EXAMPLE.caCertificatePem] })

export const caCertificateId = Type.String({
  pattern: '^[0-9a-f]{64}$', description: 'SHA-256 of the DER of the CA certificate, in hex.', examples: [EXAMPLE.caCertificateId]
})

const mode = Type.Enum([...AUTHORITY_MODES], {
  description: '`DEFAULT`: the key was shown by a verification certificate. `SNI_ONLY`: it was not, and devices must send SNI.', examples: ['SNI_ONLY']
})
const status = Type.Enum([...AUTHORITY_STATUSES], { description: 'Only an ACTIVE one takes new devices; those it has go on working either way.', examples: ['INACTIVE'] })
const autoRegistration = Type.Boolean({ description: 'Whether AWS IoT registers its unknown certificates at their first connection (JITR).', examples: [false] })
const whenCrlUnavailable = Type.Enum([...WITHOUT_CRL], {
  description: 'What becomes of a certificate while no CRL in force says whether it is revoked.', examples: ['refuse']
})
const crls = Type.Array(Type.String({ minLength: 1, maxLength: 2_048 }), {
  maxItems: 8,
  uniqueItems: true,
  description: 'CRLs of the authority and its intermediates: http(s) URLs, or names of files in `CRL_DIR`.',
  examples: [['http://pki.example/factory.crl']]
})
const products = Type.Array(Type.String({ pattern: '^[A-Za-z0-9._-]{1,64}$' }), {
  maxItems: 100, uniqueItems: true, description: 'The products that its certificates may be for; all where it is absent.', examples: [[EXAMPLE.product]]
})
const intermediatesPem = pem('The CA certificates between it and its devices\', one after the other.')

export const NewAuthorityBody = Type.Object({
  caCertificatePem: pem('The certificate of the CA that signs devices\' certificates, or the intermediates above them.'),
  verificationCertificatePem: Type.Optional(pem('For `DEFAULT`: signed by the CA, with the registration code as its common name.')),
  mode: Type.Optional(Type.Enum([...AUTHORITY_MODES], { description: '`DEFAULT` where it is left out.' })),
  status: Type.Optional(Type.Enum([...AUTHORITY_STATUSES], { description: '`INACTIVE` where it is left out.' })),
  autoRegistration: Type.Optional(Type.Boolean({ description: 'False where it is left out.' })),
  intermediatesPem: Type.Optional(intermediatesPem),
  crls: Type.Optional(crls),
  whenCrlUnavailable: Type.Optional(Type.Enum([...WITHOUT_CRL], { description: '`refuse` where it is left out.' })),
  products: Type.Optional(products)
}, {
  additionalProperties: false,
  examples: [{ caCertificatePem: EXAMPLE.caCertificatePem, mode: 'SNI_ONLY', crls: ['http://pki.example/factory.crl'], products: [EXAMPLE.product] }]
})

export const ChangeBody = Type.Object({
  status: Type.Optional(status),
  autoRegistration: Type.Optional(autoRegistration),
  intermediatesPem: Type.Optional(Type.Union([intermediatesPem, Type.Null()], { description: 'Null takes them away.' })),
  crls: Type.Optional(crls),
  whenCrlUnavailable: Type.Optional(whenCrlUnavailable),
  products: Type.Optional(Type.Union([products, Type.Null()], { description: 'Null allows all.' }))
}, {
  additionalProperties: false,
  minProperties: 1,
  description: 'What is left out stays as it is (RFC 7396).',
  examples: [{ status: 'ACTIVE', autoRegistration: true, crls: ['http://pki.example/factory.crl'] }]
})

const common = {
  caCertificateId,
  caCertificateArn: Type.String({ description: 'The CA certificate in AWS IoT.', examples: [`arn:aws:iot:us-east-1:123456789012:cacert/${EXAMPLE.caCertificateId}`] }),
  subject: Type.Optional(Type.String({ description: 'Whose it says it is; absent where its certificate cannot be read strictly, and nothing is verified to it.', examples: ['O=Example, CN=Example Factory CA'] })),
  mode,
  status,
  autoRegistration,
  createdAt: time('When it was registered.'),
  notBefore: time('When its certificate begins.', '2020-01-01T00:00:00.000Z'),
  notAfter,
  crls,
  whenCrlUnavailable,
  products: Type.Optional(products)
}

export const AuthorityAnswer = Type.Object({
  ...common,
  caCertificatePem: Type.String({ description: 'The CA certificate.', examples: [EXAMPLE.caCertificatePem] }),
  intermediatesPem: Type.Optional(Type.String({ description: 'The CA certificates between it and its devices\'.', examples: [EXAMPLE.caCertificatePem] }))
})

export const ListedAuthority = Type.Object(common)

export const CertificateOfAuthority = Type.Object({
  certificateId,
  certificateArn,
  status: Type.String({ description: 'As AWS IoT has it.', examples: ['ACTIVE'] }),
  registeredAt: time('When AWS IoT was told of it.')
})
