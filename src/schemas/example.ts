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
  now: '2026-11-20T08:00:00.000Z',
  notAfter: '2049-12-31T23:59:59.000Z',
  requestId: '0b9f8f4e-6f3b-4f0e-9a55-2f8f4f1f9c11'
} as const
