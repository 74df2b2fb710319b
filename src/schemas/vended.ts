import type { Certificate } from '../vending/device.ts'

/** What a device is told of its certificate, alone or in a batch. */
export function factsOf<V extends { certificate: Certificate }> (vended: V, renewAfter: (vended: V) => number) {
  const { thingName, certificateId, certificateArn, certificatePem, notAfter } = vended.certificate
  return {
    thingName,
    certificateId,
    certificateArn,
    certificatePem,
    notAfter: new Date(notAfter).toISOString(),
    renewAfter: new Date(renewAfter(vended)).toISOString()
  }
}
