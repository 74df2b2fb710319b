import { GetThingShadowCommand, type IoTDataPlaneClient, UpdateThingShadowCommand } from '@aws-sdk/client-iot-data-plane'
import { CvmError, type ErrorCode } from '../errors.ts'
import type { Desired, ShadowDocument, ShadowId, Shadows } from '../vending/shadows.ts'
import { failureOf, nameOf } from './iot-failures.ts'

/** What AWS IoT refuses about a shadow, by the name of its error. */
const REFUSALS: Readonly<Record<string, ErrorCode>> = {
  ConflictException: 'shadow-conflict',
  RequestEntityTooLargeException: 'shadow-too-large',
  InvalidRequestException: 'shadow-rejected'
}

/** AWS IoT's data plane through the SDK. */
export class IotDataPlane implements Shadows {
  readonly #client: IoTDataPlaneClient

  constructor (client: IoTDataPlaneClient) {
    this.#client = client
  }

  async find ({ thingName, name }: ShadowId, signal: AbortSignal): Promise<ShadowDocument | undefined> {
    try {
      const command = new GetThingShadowCommand({ thingName, ...(name !== undefined && { shadowName: name }) })
      return documentIn((await this.#client.send(command, { abortSignal: signal })).payload)
    } catch (cause) {
      if (nameOf(cause) === 'ResourceNotFoundException') return undefined
      throw failureOf(cause)
    }
  }

  async setDesired (
    { thingName, name }: ShadowId, { desired, version }: { desired: Desired, version?: number }, signal: AbortSignal
  ): Promise<ShadowDocument> {
    const payload = Buffer.from(JSON.stringify({ state: { desired }, ...(version !== undefined && { version }) }))
    const command = new UpdateThingShadowCommand({ thingName, ...(name !== undefined && { shadowName: name }), payload })
    try {
      return documentIn((await this.#client.send(command, { abortSignal: signal })).payload)
    } catch (cause) {
      const code = REFUSALS[nameOf(cause)]
      if (code === 'shadow-rejected') throw new CvmError(code, { detail: 'AWS IoT refused it: it is nested too deeply, or a list in it holds null', cause })
      throw code ? new CvmError(code, { cause }) : failureOf(cause)
    }
  }
}

function documentIn (payload: Uint8Array | undefined): ShadowDocument {
  const { state = {}, metadata = {}, version = 0, timestamp = 0 } = JSON.parse(Buffer.from(payload ?? []).toString('utf8')) as Partial<ShadowDocument>
  return { state, metadata, version, timestamp }
}
