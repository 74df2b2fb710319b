/** One value in DER: identifier, shortest length, content. X.690, 8.1 and 10.1. */
export function der (tag: number, ...content: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(content)
  return Buffer.concat([Buffer.from([tag]), lengthOf(body.length), body])
}

/** An OBJECT IDENTIFIER from its dotted form. X.690, 8.19. */
export function derOid (dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  return der(0x06, Buffer.from([first * 40 + second, ...rest.flatMap(octetsOf)]))
}

/** The values of a SET OF in the order that DER wants. X.690, 11.6. */
export function derSetOf (tag: number, values: readonly Buffer[]): Buffer {
  return der(tag, ...values.toSorted(Buffer.compare))
}

function lengthOf (length: number): Buffer {
  if (length < 0x80) return Buffer.from([length])
  const octets: number[] = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256)
  return Buffer.from([0x80 | octets.length, ...octets])
}

function octetsOf (arc: number): number[] {
  const octets = [arc % 128]
  for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) octets.unshift(0x80 | rest % 128)
  return octets
}
