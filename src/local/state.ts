/** A part of the account that is kept across restarts; a snapshot is what JSON can hold. */
export interface Store {
  snapshot (): unknown
  /** Takes what `snapshot` gave, into an empty store; may throw on anything else. */
  restore (kept: unknown): void
}
