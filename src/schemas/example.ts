/** One device for all examples, so that they tell one story. Nothing of it is secret: its private key was thrown away after signing. */
export const EXAMPLE = {
  serialNumber: 'sn-0001',
  product: 'default',
  registrationToken: 'UWSS3A0IhcxU15SPt0eKEdcT_70OoGPnROmUZ6lcPLM',
  certificateSigningRequest: `-----BEGIN CERTIFICATE REQUEST-----
MIHNMHQCAQAwEjEQMA4GA1UEAwwHc24tMDAwMTBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABIWxhZxWTnbDhz5pGntQqrRa8MYsOQm4ChF0gDTeVwtpcJQlSCgGXYgl
NznmC0TEcYgdqKtt5ZzxVkikQ749tJqgADAKBggqhkjOPQQDAgNJADBGAiEAgpTG
oC/tePxHVGlXDsXxQdXBPQPoPrm6zJSLZ08fnRgCIQCsoud4vA2+K/mUuDRlP6VV
DpN/JcsDxRiCaGvPte2iaA==
-----END CERTIFICATE REQUEST-----
`,
  certificateId: '9f2b64c5d1c7a7e1f6a0f4c3a9a0e2b86f3f6fd3d3b1e6c1a4f5d7a8c0b1e2f3',
  certificateArn: 'arn:aws:iot:us-east-1:123456789012:cert/9f2b64c5d1c7a7e1f6a0f4c3a9a0e2b86f3f6fd3d3b1e6c1a4f5d7a8c0b1e2f3',
  certificatePem: '-----BEGIN CERTIFICATE-----\nMIIC…\n-----END CERTIFICATE-----\n',
  rootCaPem: '-----BEGIN CERTIFICATE-----\nMIIDQTCC…\n-----END CERTIFICATE-----\n',
  endpoint: 'a1b2c3d4e5f6g7-ats.iot.us-east-1.amazonaws.com',
  caCertificateId: 'a91fe36664ca071cd4d1a84e8d3d87055751588478b72863f2940e27e9725ba2',
  caCertificatePem: `-----BEGIN CERTIFICATE-----
MIIBczCCARqgAwIBAgIDChHOMAoGCCqGSM49BAMCMC8xEDAOBgNVBAoTB0V4YW1w
bGUxGzAZBgNVBAMTEkV4YW1wbGUgRmFjdG9yeSBDQTAgFw0yMDAxMDEwMDAwMDBa
GA8yMDk5MTIzMTIzNTk1OVowLzEQMA4GA1UEChMHRXhhbXBsZTEbMBkGA1UEAxMS
RXhhbXBsZSBGYWN0b3J5IENBMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEl9x
7u/BDSOo5w8JVNzJqrg79/g06+yVnVXE/UGt5XVV/uCCCBceP+WDDvwVWzVet3qd
qdV+2Ygx9piquJEJlaMjMCEwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMC
AQYwCgYIKoZIzj0EAwIDRwAwRAIgBiTRZ+7jm6v0WvbzdSqplBNV1i43Oz6eSZEm
0hJT4O4CIEFxhaAid7pyCCcOFvnbbipxsMPU1gcUbgQf/+5kQnqk
-----END CERTIFICATE-----
`,
  foreignCertificatePem: `-----BEGIN CERTIFICATE-----
MIIBNjCB3aADAgECAgMKGywwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHc24tMDAw
MTAgFw0yMDAxMDEwMDAwMDBaGA8yMDk5MTIzMTIzNTk1OVowEjEQMA4GA1UEAwwH
c24tMDAwMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLwH6hPkBmB25cIJ7zZw
CxW8p8iTUQD1ZBpcejm3q8lnhy1yi4Tp9wqTyYNOCA8WhB19jFax2ZTvCNYXkF+f
3zejIDAeMAwGA1UdEwEB/wQCMAAwDgYDVR0PAQH/BAQDAgeAMAoGCCqGSM49BAMC
A0gAMEUCIQDKrzdyHJOMr7kK378kfcnx+ZUOGiQzcHmammjnP7Fp/wIgXWhPVcbF
xrLASmd1gyZwEpQiQlqO0XNE4NtGn7rGY/A=
-----END CERTIFICATE-----
`,
  now: '2026-11-20T08:00:00.000Z',
  notAfter: '2049-12-31T23:59:59.000Z',
  requestId: '0b9f8f4e-6f3b-4f0e-9a55-2f8f4f1f9c11'
} as const
