import { AwsError } from './aws-error.ts'

/** An expression of AWS IoT SQL: as much of it as is understood here. */
export type Expression =
  | { readonly kind: 'literal', readonly value: string | number | boolean | null }
  | { readonly kind: 'path', readonly names: readonly string[] }
  | { readonly kind: 'call', readonly name: FunctionName, readonly argument?: number }
  | { readonly kind: 'compare', readonly operator: string, readonly left: Expression, readonly right: Expression }
  | { readonly kind: 'both' | 'either', readonly left: Expression, readonly right: Expression }
  | { readonly kind: 'not', readonly operand: Expression }

type FunctionName = 'accountid' | 'clientid' | 'principal' | 'timestamp' | 'topic'

/** A statement; an item without expression is `*`. */
export interface Statement {
  readonly items: ReadonlyArray<{ readonly name: string, readonly expression?: Expression }>
  readonly filter: string
  readonly where: Expression | undefined
}

const FUNCTIONS: readonly string[] = ['accountid', 'clientid', 'principal', 'timestamp', 'topic'] satisfies FunctionName[]
const KEYWORDS: readonly string[] = ['select', 'as', 'from', 'where', 'and', 'or', 'not', 'true', 'false', 'null']
const COMPARISONS: readonly string[] = ['=', '<>', '!=', '<', '<=', '>', '>=']
const TOKEN = /\s*(?:('(?:[^']|'')*')|(\d+(?:\.\d+)?)|([A-Za-z_][A-Za-z0-9_]*)|(<>|!=|<=|>=|[*,.()=<>-]))/uy

/**
 * `SELECT * | item, … FROM 'filter' [WHERE condition]`; an item is a field (`a.b`), a literal or a function, with `AS name`. What AWS
 * understands beyond that is refused with SqlParseException: a rule must not do something else here than there.
 */
export function parseStatement (sql: string): Statement {
  const reader = new Reader(sql)
  reader.expect('select')
  const items = []
  do items.push(reader.item()); while (reader.take(','))
  reader.expect('from')
  const filter = reader.string()
  const where = reader.take('where') ? reader.condition() : undefined
  reader.end()
  return { items, filter, where }
}

/** An expression alone, as it stands in a substitution template. */
export function parseExpression (text: string): Expression {
  const reader = new Reader(text)
  const expression = reader.condition()
  reader.end()
  return expression
}

class Reader {
  readonly #tokens: string[] = []
  #at = 0

  constructor (sql: string) {
    const scanner = new RegExp(TOKEN)
    const text = sql.trimEnd()
    while (scanner.lastIndex < text.length) {
      const start = scanner.lastIndex
      const found = scanner.exec(text)
      if (found === null) throw failed(`unexpected '${text.slice(start).trim().slice(0, 20)}'`)
      this.#tokens.push(found[0].trim())
    }
  }

  /** Keywords and signs are told apart by their text; a string begins with its quote, so it is neither. */
  take (token: string): boolean {
    if (this.#tokens[this.#at]?.toLowerCase() !== token) return false
    this.#at++
    return true
  }

  expect (token: string): void {
    if (!this.take(token)) throw this.#unexpected(token.toUpperCase())
  }

  end (): void {
    if (this.#at < this.#tokens.length) throw this.#unexpected('the end')
  }

  string (): string {
    const token = this.#tokens[this.#at]
    if (token?.startsWith("'") !== true) throw this.#unexpected('a string in single quotes')
    this.#at++
    return token.slice(1, -1).replaceAll("''", "'")
  }

  item (): { name: string, expression?: Expression } {
    if (this.take('*')) return { name: '*' }
    const expression = this.#value()
    if (this.take('as')) return { name: this.#name(), expression }
    const name = expression.kind === 'path' ? expression.names.at(-1) : undefined
    if (name === undefined) throw this.#unexpected('AS and a name')
    return { name, expression }
  }

  condition (): Expression {
    let left = this.#conjunction()
    while (this.take('or')) left = { kind: 'either', left, right: this.#conjunction() }
    return left
  }

  #conjunction (): Expression {
    let left = this.#comparison()
    while (this.take('and')) left = { kind: 'both', left, right: this.#comparison() }
    return left
  }

  #comparison (): Expression {
    if (this.take('not')) return { kind: 'not', operand: this.#comparison() }
    const left = this.#value()
    const operator = COMPARISONS.find(sign => this.take(sign))
    return operator === undefined ? left : { kind: 'compare', operator, left, right: this.#value() }
  }

  #value (): Expression {
    if (this.take('(')) {
      const inner = this.condition()
      this.expect(')')
      return inner
    }
    for (const [word, value] of [['true', true], ['false', false], ['null', null]] as const) {
      if (this.take(word)) return { kind: 'literal', value }
    }
    const token = this.#tokens[this.#at] ?? ''
    if (token.startsWith("'")) return { kind: 'literal', value: this.string() }
    if (/^[\d-]/.test(token)) return { kind: 'literal', value: this.#number() }
    const name = this.#name()
    if (this.take('(')) return this.#call(name)
    const names = [name]
    while (this.take('.')) names.push(this.#name())
    return { kind: 'path', names }
  }

  #call (name: string): Expression {
    const known = name.toLowerCase()
    if (!FUNCTIONS.includes(known)) throw failed(`the function ${name}() is not supported here`)
    const argument = known === 'topic' && !this.take(')') ? this.#number() : undefined
    if (known !== 'topic' || argument !== undefined) this.expect(')')
    return { kind: 'call', name: known as FunctionName, ...(argument === undefined ? {} : { argument }) }
  }

  #number (): number {
    const sign = this.take('-') ? -1 : 1
    const token = this.#tokens[this.#at] ?? ''
    if (!/^\d/.test(token)) throw this.#unexpected('a number')
    this.#at++
    return sign * Number(token)
  }

  #name (): string {
    const token = this.#tokens[this.#at] ?? ''
    if (!/^[A-Za-z_]/.test(token) || KEYWORDS.includes(token.toLowerCase())) throw this.#unexpected('a name')
    this.#at++
    return token
  }

  #unexpected (wanted: string): AwsError {
    return failed(`expected ${wanted}, found ${this.#tokens[this.#at] ?? 'the end'}`)
  }
}

function failed (why: string): AwsError {
  return new AwsError('SqlParseException', `The SQL is not valid, or not understood by the local AWS IoT: ${why}`)
}
