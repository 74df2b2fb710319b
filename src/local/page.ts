import { invalidRequest } from './aws-error.ts'

/** One page of a list and the marker of the next, absent on the last page. */
interface Page<T> { readonly items: readonly T[], readonly next: string | undefined }

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

function decode (marker: string): string {
  const bytes = Buffer.from(marker, 'base64')
  if (bytes.toString('base64') !== marker) throw invalidRequest('The marker is not valid')
  return bytes.toString('utf8')
}
