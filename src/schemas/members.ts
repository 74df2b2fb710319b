import { Type } from 'typebox'
import { DEVICE_STATES } from '../vending/device.ts'
import { SERIAL_NUMBER } from '../vending/names.ts'
import { EXAMPLE } from './example.ts'

/** The media type of many items, a line each. */
export const NDJSON = 'application/x-ndjson'

/** No white space around it and no line end in it: what a file or a terminal adds to a token is not the token. */
const TOKEN = '^\\S(?:[^\\r\\n\\t]*\\S)?$'

// What several routes take or answer under the same name, so that it means the same everywhere.

export const serialNumber = Type.String({
  pattern: SERIAL_NUMBER, description: 'Names the device, and is in the name of its thing.', examples: [EXAMPLE.serialNumber]
})

export const registrationToken = Type.String({
  minLength: 1, maxLength: 256, pattern: TOKEN, description: 'The one-time secret of the device.', examples: [EXAMPLE.registrationToken]
})

export const product = Type.String({ description: 'The settings that the device shares with others of its kind.', examples: [EXAMPLE.product] })

export const thingName = Type.String({ description: 'The device in AWS IoT, and its MQTT client id.', examples: [EXAMPLE.serialNumber] })

export const certificateId = Type.String({ description: 'SHA-256 of the certificate\'s DER, in hex.', examples: [EXAMPLE.certificateId] })

export const state = Type.Enum([...DEVICE_STATES], { description: 'The state of the device.', examples: ['ACTIVE'] })

export const certificateArn = Type.String({ description: 'The certificate in AWS IoT.', examples: [EXAMPLE.certificateArn] })

export const certificatePem = Type.String({ description: 'The certificate.', examples: [EXAMPLE.certificatePem] })

/** A moment, as people and programs read it. */
export function time (description: string, example: string = EXAMPLE.now) {
  return Type.String({ format: 'date-time', description, examples: [example] })
}

export const notAfter = time('When the certificate ends.', EXAMPLE.notAfter)
