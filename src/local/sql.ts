import { isDeepStrictEqual } from 'node:util'
import type { Message } from './messages.ts'
import { isObject, type Json } from './shadow-document.ts'
import { parseExpression, type Expression, type Statement } from './sql-syntax.ts'

/** What expressions are evaluated on: a message, whose payload is read once. Undefined content is a payload that is not JSON. */
export interface Subject { readonly message: Message, readonly content: Json | undefined, readonly accountId: string }

export function subjectOf (message: Message, accountId: string): Subject {
  try {
    return { message, accountId, content: JSON.parse(message.payload.toString()) as Json }
  } catch {
    return { message, accountId, content: undefined }
  }
}

/** The rule's outcome for a message whose topic its filter covers; undefined when WHERE leaves it out. `SELECT *` passes bytes through. */
export function selected ({ items, where }: Statement, subject: Subject): Buffer | undefined {
  if (where !== undefined && evaluated(where, subject) !== true) return undefined
  if (items.length === 1 && items[0]?.expression === undefined) return subject.message.payload
  const members = items.flatMap(({ name, expression }): Array<[string, Json]> => {
    if (expression === undefined) return isObject(subject.content) ? Object.entries(subject.content) : []
    const value = evaluated(expression, subject)
    return value === undefined ? [] : [[name, value]]
  })
  return Buffer.from(JSON.stringify(Object.fromEntries(members)))
}

const TEMPLATE = /\$\{([^}]*)\}/g

/** Fills `${expression}` from the message as it came in, not from what SELECT made of it; what is undefined leaves nothing. */
export function filled (template: string, subject: Subject): string {
  return template.replace(TEMPLATE, (_all, expression: string) => {
    const value = evaluated(parseExpression(expression), subject)
    return value === undefined ? '' : typeof value === 'string' ? value : JSON.stringify(value)
  })
}

/** Refuses a template whose expressions cannot be read; tells whether it has any. */
export function isTemplate (text: string): boolean {
  const expressions = [...text.matchAll(TEMPLATE)]
  for (const [, expression = ''] of expressions) parseExpression(expression)
  return expressions.length > 0
}

/** The value; undefined is AWS's Undefined, which no comparison survives. */
function evaluated (expression: Expression, subject: Subject): Json | undefined {
  switch (expression.kind) {
    case 'literal': return expression.value
    case 'path': return expression.names.reduce<Json | undefined>(
      (value, name) => isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined, subject.content)
    case 'call': return called(expression, subject)
    case 'compare': return compared(expression.operator, evaluated(expression.left, subject), evaluated(expression.right, subject))
    case 'both': return evaluated(expression.left, subject) === true && evaluated(expression.right, subject) === true
    case 'either': return evaluated(expression.left, subject) === true || evaluated(expression.right, subject) === true
    case 'not': return evaluated(expression.operand, subject) !== true
  }
}

function called ({ name, argument }: Expression & { kind: 'call' }, { message, accountId }: Subject): Json | undefined {
  switch (name) {
    case 'accountid': return accountId
    case 'clientid': return message.clientId ?? 'N/A'
    case 'principal': return message.certificateId
    case 'timestamp': return Date.now()
    case 'topic': return argument === undefined ? message.topic : message.topic.split('/')[argument - 1]
  }
}

function compared (operator: string, left: Json | undefined, right: Json | undefined): Json | undefined {
  if (left === undefined || right === undefined) return undefined
  if (operator === '=') return isDeepStrictEqual(left, right)
  if (operator === '<>' || operator === '!=') return !isDeepStrictEqual(left, right)
  const ordered = (typeof left === 'number' && typeof right === 'number') || (typeof left === 'string' && typeof right === 'string')
  if (!ordered) return undefined
  return operator === '<' ? left < right : operator === '<=' ? left <= right : operator === '>' ? left > right : left >= right
}
