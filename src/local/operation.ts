/** What an operation is called with; nothing in it has been checked yet. */
export interface Call {
  readonly params: Readonly<Record<string, string | undefined>>
  readonly query: Readonly<Record<string, unknown>>
  readonly body: Readonly<Record<string, unknown>>
  /** The header `x-amzn-principal`. */
  readonly principal: string | undefined
}

/** One operation of the AWS IoT API: where it is served and what it answers. Status 200 always; failures are thrown as AwsError. */
interface Operation {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly url: string
  readonly run: (call: Call) => object | Promise<object>
}

/** Operations by AWS's name. */
export type Operations = Readonly<Record<string, Operation>>

/** A time as AWS's JSON has it: epoch seconds with a fraction. */
export function epochSeconds (milliseconds: number): number {
  return milliseconds / 1000
}
