import type { ErrorCode } from '../errors.ts'

/** What any route may answer that asks the device registry. */
export const REGISTRY_FAILURES = ['registry-unavailable'] as const satisfies readonly ErrorCode[]

/** What any route may answer that calls AWS IoT. */
export const AWS_IOT_FAILURES = ['aws-iot-refused', 'aws-iot-throttled', 'aws-iot-unavailable'] as const satisfies readonly ErrorCode[]
