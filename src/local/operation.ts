/** What an operation is called with; nothing in it has been checked yet. */
export interface Call {
  readonly params: Readonly<Record<string, string | undefined>>
  readonly query: Readonly<Record<string, unknown>>
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** The JSON body; empty when there is none, and always on the data plane, whose bodies are any bytes. */
  readonly body: Readonly<Record<string, unknown>>
  readonly payload: Buffer
  /** The header `x-amzn-principal`. */
  readonly principal: string | undefined
}

/** One operation of the AWS IoT API: where it is served and what it answers. Status 200 always; failures are thrown as AwsError. */
interface Operation {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly url: string
  /** The data plane is signed for `iotdata`, takes any bytes, says 429 when throttled and has `code` in its error bodies. */
  readonly plane?: 'data'
  /** Open to callers without credentials, as the link that confirms a destination is. */
  readonly unsigned?: true
  /** A Buffer is sent as the bytes it is, anything else as JSON. */
  readonly run: (call: Call) => object | Buffer | Promise<object | Buffer>
}

/** Operations by AWS's name. */
export type Operations = Readonly<Record<string, Operation>>

/** A time as AWS's JSON has it: epoch seconds with a fraction. */
export function epochSeconds (milliseconds: number): number {
  return milliseconds / 1000
}
