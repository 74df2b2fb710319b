import { invalidRequest } from './aws-error.ts'
import { flag, MARKER, optionalText, pageSize } from './constraints.ts'
import type { Call } from './operation.ts'

/** One page of a list and the marker of the next, absent on the last page. */
export interface Page<T> { readonly items: readonly T[], readonly next: string | undefined }

/**
 * Cuts one page out of `sorted`, whose keys rise (or fall, when `descending`). The marker is the last key that was shown, so a
 * page neither repeats nor skips anything when items come and go between calls.
 */
export function page<T> (
  sorted: readonly T[], key: (item: T) => string, size: number, marker: string | undefined, descending = false
): Page<T> {
  const last = marker === undefined ? undefined : decode(marker)
  const rest = last === undefined ? sorted : sorted.filter(item => descending ? key(item) < last : key(item) > last)
  const items = rest.slice(0, size)
  const end = items.at(-1)
  return { items, next: rest.length > size && end !== undefined ? Buffer.from(key(end)).toString('base64') : undefined }
}

/** The page a call asks for with `maxResults` and `nextToken`, as the registry's lists have it; `sorted` rises by its key. */
export function tokenPage<T> (sorted: readonly T[], key: (item: T) => string, { query }: Call): Page<T> {
  return page(sorted, key, pageSize(query['maxResults'], 'maxResults', 250), optionalText(query['nextToken'], 'nextToken', MARKER))
}

/** The page a call asks for with `pageSize` and `marker`; `sorted` rises by its key. */
export function markerPage<T> (sorted: readonly T[], key: (item: T) => string, { query }: Call): Page<T> {
  return page(sorted, key, pageSize(query['pageSize'], 'pageSize', 250), optionalText(query['marker'], 'marker', MARKER))
}

/** The same for what has a date of creation: newest first unless `isAscendingOrder`, and 25 to a page. */
export function datedPage<T extends { readonly sequence: number }> (oldestFirst: readonly T[], { query }: Call): Page<T> {
  const ascending = flag(query['isAscendingOrder'], 'isAscendingOrder')
  const size = pageSize(query['pageSize'], 'pageSize', 25)
  const marker = optionalText(query['marker'], 'marker', MARKER)
  if (marker !== undefined && !/^\d{12}$/.test(decode(marker))) throw invalidRequest('The marker is not valid')
  return page(ascending ? oldestFirst : oldestFirst.toReversed(), ({ sequence }) => String(sequence).padStart(12, '0'), size, marker, !ascending)
}

function decode (marker: string): string {
  const bytes = Buffer.from(marker, 'base64')
  if (bytes.toString('base64') !== marker) throw invalidRequest('The marker is not valid')
  return bytes.toString('utf8')
}
