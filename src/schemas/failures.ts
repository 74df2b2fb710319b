import { Type } from 'typebox'
import type { ErrorCode } from '../errors.ts'

/** What the result of one item of many says where it is refused or failed. */
export const itemFailure = {
  code: Type.Optional(Type.String({ description: 'The error code, where it is refused or failed.' })),
  detail: Type.Optional(Type.String({ description: 'What exactly is wrong.' })),
  remedy: Type.Optional(Type.String({ description: 'What to do about it.' })),
  reason: Type.Optional(Type.String({ description: 'The stable name of the rule that was broken, where the code has several.' })),
  retryAfterMs: Type.Optional(Type.Number({ description: 'Milliseconds after which to send it again.' }))
}

/** What any route may answer that asks the device registry. */
export const REGISTRY_FAILURES = ['device-unreadable', 'registry-unavailable'] as const satisfies readonly ErrorCode[]

/** What any route may answer that calls AWS IoT. */
export const AWS_IOT_FAILURES = ['aws-iot-refused', 'aws-iot-throttled', 'aws-iot-unavailable'] as const satisfies readonly ErrorCode[]
