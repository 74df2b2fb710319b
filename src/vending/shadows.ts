/** Which shadow: the classic one of the thing where it has no name. */
export interface ShadowId { thingName: string, name?: string }

/** What a shadow is to say of the state wanted; members that are null go, and `null` takes all of it away. */
export type Desired = Readonly<Record<string, unknown>> | null

/** A shadow as AWS IoT tells it; times in it are epoch seconds. */
export interface ShadowDocument {
  state: { desired?: Record<string, unknown>, reported?: Record<string, unknown>, delta?: Record<string, unknown> }
  metadata: Record<string, unknown>
  /** Grows with every change. */
  version: number
  timestamp: number
}

/**
 * The part of AWS IoT's data plane that is needed here. Calls end within the adapter's time limit or when `signal` aborts. Failures are
 * `CvmError`s: those of the control plane, and the ones named.
 */
export interface Shadows {
  /** GetThingShadow; undefined where there is none. */
  find (id: ShadowId, signal: AbortSignal): Promise<ShadowDocument | undefined>

  /**
   * UpdateThingShadow, merged into what is there; with `version` only where the shadow is at that one. The answer's state is what was
   * asked for. Raises `CvmError`: `shadow-conflict`, also where an attempt whose answer was lost had been done; `shadow-too-large`;
   * `shadow-rejected`.
   */
  setDesired (id: ShadowId, change: { desired: Desired, version?: number }, signal: AbortSignal): Promise<ShadowDocument>
}
