import { type Static, Type } from 'typebox'
import { FINDING_KINDS, type Finding as KeptFinding } from '../vending/drift-findings.ts'
import { certificateId, product, serialNumber, time } from './members.ts'

/** How AWS IoT and the registry differ about a device, as callers see it. */
export const Finding = Type.Object({
  serialNumber,
  kind: Type.Enum([...FINDING_KINDS], { description: 'In what they differ.', examples: ['status-differs'] }),
  product,
  certificateId: Type.Optional(certificateId),
  registry: Type.String({ description: 'What the registry says.', examples: ['ACTIVE'] }),
  awsIot: Type.String({ description: 'What AWS IoT says.', examples: ['INACTIVE'] }),
  foundAt: time('When it was first seen as it is now.'),
  accepted: Type.Optional(Type.Object({
    at: time('When.'),
    actor: Type.String({ description: 'The operator.', examples: ['operator-1'] }),
    reason: Type.String({ description: 'Why, in their words.', examples: ['ticket 4711: paused by the customer'] })
  }, { description: 'An operator has accepted it.' }))
})

/** A finding for people. */
export function findingOf ({ aws, foundAt, accepted, ...finding }: KeptFinding): Static<typeof Finding> {
  return {
    ...finding,
    awsIot: aws,
    foundAt: new Date(foundAt).toISOString(),
    ...(accepted && { accepted: { ...accepted, at: new Date(accepted.at).toISOString() } })
  }
}
