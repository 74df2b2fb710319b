/** Values of policy variables of one connection, by name without `${}`; one that is absent is unresolved, a list has no place in a text. */
export type Variables = ReadonlyMap<string, string | readonly string[]>

// Predefined variables: the characters that mean something else on their own.
const CHARACTERS = ['*', '?', '$']
const MAX_VALUE_CHARACTERS = 1024

/**
 * `*` is any text, `?` any one character, `${name}` the variable's value taken literally. Undefined when a variable is unresolved, or
 * when its value could be read as a wildcard or is too long (AWS substitutes neither): the pattern then matches nothing.
 */
export function glob (pattern: string, variables: Variables, flags = ''): RegExp | undefined {
  let source = ''
  for (const [token, name] of pattern.matchAll(/\$\{([^}]*)\}|[^]/gu)) {
    if (name !== undefined) {
      const value = substitute(name, variables)
      if (value === undefined) return undefined
      source += escape(value)
    } else source += token === '*' ? '.*' : token === '?' ? '.' : escape(token)
  }
  return new RegExp(`^${source}$`, `su${flags}`)
}

/** A text with its variables filled in, in which wildcards are letters; undefined as above. */
export function literal (text: string, variables: Variables): string | undefined {
  let filled = ''
  for (const [token, name] of text.matchAll(/\$\{([^}]*)\}|[^]/gu)) {
    const part = name === undefined ? token : substitute(name, variables)
    if (part === undefined) return undefined
    filled += part
  }
  return filled
}

function substitute (name: string, variables: Variables): string | undefined {
  if (CHARACTERS.includes(name)) return name
  const value = variables.get(name)
  return typeof value !== 'string' || value.length > MAX_VALUE_CHARACTERS || /[*$+?#]/.test(value) ? undefined : value
}

function escape (text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
}
