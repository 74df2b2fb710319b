/** Where and why a text is not JSON, and what to write instead. The text is not quoted: it may hold a token. */
export function jsonFault (text: string): string | undefined {
  if (text.charCodeAt(0) === 0 || text.charCodeAt(1) === 0) return 'the body is UTF-16; JSON is sent in UTF-8'
  const found = faultInString(text)
  if (found) return found
  try {
    JSON.parse(text)
    return undefined
  } catch (error) {
    const [, position] = /at position (\d+)/.exec((error as Error).message) ?? []
    return position === undefined ? undefined : `${placeOf(text, Number(position))}: this is not JSON`
  }
}

/** The first character that no string of JSON may hold as it is (RFC 8259 section 7), or a string that does not end. */
function faultInString (text: string): string | undefined {
  let start: number | undefined
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) start = start === undefined ? at : undefined
    else if (start === undefined) continue
    else if (code === 0x5c) at++
    else if (code === 0x0a || code === 0x0d) return `${placeOf(text, at)}: a line ends inside a string; ${PEM_LINES}`
    else if (code < 0x20) return `${placeOf(text, at)}: a control character inside a string; write it as \\u${code.toString(16).padStart(4, '0')}`
  }
  if (start === undefined) return undefined
  // A line of NDJSON ends where the string should go on.
  return `${placeOf(text, start)}: this string does not end${text.startsWith('-----BEGIN ', start + 1) ? `; ${PEM_LINES}` : ''}`
}

const PEM_LINES = 'the line ends of a PEM are written \\n'

function placeOf (text: string, at: number): string {
  const lines = text.slice(0, at).split(/\r\n|\n|\r/)
  return `line ${lines.length}, column ${(lines.at(-1)?.length ?? 0) + 1}`
}
