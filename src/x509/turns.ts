import { setImmediate } from 'node:timers/promises'

/** Lets the event loop serve others. `read` says how many entries of a list were read since the last call. */
export type EndTurn = (read: number) => Promise<void>

/** Ends the turn of the event loop: what waits is served before the work goes on. */
export const endTurn: EndTurn = async () => { await setImmediate() }
