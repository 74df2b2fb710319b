import { membersOf } from './shape.ts'
import type { DerValue } from './der.ts'

const URI = 0x86
const [POINT, FULL_NAME] = [0xa0, 0xa0]

/** The URIs among GeneralNames. RFC 5280, 4.2.1.6. */
export function urlsOf (names: readonly DerValue[]): string[] {
  return names.flatMap(({ tag, content }) => tag === URI ? content.toString('latin1') : [])
}

/** The addresses in a cRLDistributionPoints, of all points. RFC 5280, 4.2.1.13. Throws a `ShapeError`. */
export function distributionUrlsOf (points: DerValue): string[] {
  return membersOf(points, 'it').flatMap(point => membersOf(point, 'a distribution point')
    .flatMap(({ tag, children }) => tag === POINT ? children : [])
    .flatMap(({ tag, children }) => tag === FULL_NAME ? urlsOf(children) : []))
}
