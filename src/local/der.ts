/** One DER element: tag, length, and the parts as its content. */
export function der (tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  // Everything built here comes from a request of a few kilobytes, so a third length byte cannot occur.
  if (length > 0xffff) throw new RangeError('DER element too long')
  return Buffer.concat([Uint8Array.of(tag, ...size), ...parts])
}

/** The elements that lie one after another in `bytes`, each with its header; throws on anything that is not DER. */
export function elements (bytes: Buffer): Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at < bytes.length;) {
    const { end } = extent(bytes, at)
    found.push(bytes.subarray(at, end))
    at = end
  }
  return found
}

/** What an element holds, without its header. */
export function content (element: Buffer): Buffer {
  const { start, end } = extent(element, 0)
  return element.subarray(start, end)
}

function extent (bytes: Buffer, at: number): { start: number, end: number } {
  const first = bytes[at + 1]
  // Tags above 30 and indefinite lengths do not occur in what is read here.
  if (first === undefined || ((bytes[at] ?? 0) & 0x1f) === 0x1f || first === 0x80 || first > 0x84) throw new RangeError('not DER')
  let start = at + 2
  let length = first
  if (first > 0x80) {
    const octets = first - 0x80
    if (start + octets > bytes.length) throw new RangeError('not DER')
    length = bytes.readUIntBE(start, octets)
    if (length < 0x80 || length < 2 ** (8 * (octets - 1))) throw new RangeError('not DER')
    start += octets
  }
  if (start + length > bytes.length) throw new RangeError('not DER')
  return { start, end: start + length }
}
