import type { Vended } from '../vending/vend-steps.ts'

/** What a device is told of its certificate, alone or in a batch. */
export function factsOf (vended: Vended, renewAfter: (vended: Vended) => number) {
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
