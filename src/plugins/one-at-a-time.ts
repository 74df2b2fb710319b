import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** Pipelined requests (RFC 9112 section 9.3.2) of one connection that may wait; a client that sends more is cut off after them. */
const MAX_WAITING = 32

interface Line {
  current?: { request: IncomingMessage, response: ServerResponse } | undefined
  waiting: { request: IncomingMessage, response: ServerResponse }[]
  /** Whether no further request of the connection is taken. */
  isOver: boolean
}

const lines = new WeakMap<Socket, Line>()

/**
 * Hands the requests of a connection to `handle` one at a time: the next begins once the answer before it is out. What waits when the
 * connection ends is never begun; Node itself begins all at once, and on Node 20 their responses never close.
 */
export function oneAtATime (handle: RequestListener): RequestListener {
  return (request, response) => {
    const { socket } = request
    const line = lines.get(socket) ?? newLine(socket)
    const each = { request, response }
    if (line.isOver) return
    if (line.current === undefined) return begin(each, line, handle)
    line.waiting.push(each)
    if (line.waiting.length < MAX_WAITING) return
    line.isOver = true
    response.setHeader('connection', 'close')
    socket.pause()
  }
}

function newLine (socket: Socket): Line {
  const line: Line = { waiting: [], isOver: false }
  lines.set(socket, line)
  socket.once('close', () => {
    line.isOver = true
    line.waiting = []
  })
  return line
}

function begin (each: { request: IncomingMessage, response: ServerResponse }, line: Line, handle: RequestListener): void {
  line.current = each
  each.response.once('close', () => {
    line.current = undefined
    const next = line.waiting.shift()
    if (next) begin(next, line, handle)
    else if (line.isOver) each.request.socket.destroySoon()
  })
  handle(each.request, each.response)
}

/**
 * Lets a connection end after the answer that is being made on it, where what follows its request cannot be read. False where there is no
 * such answer to wait for.
 */
export function endsAfterAnswer (socket: Socket): boolean {
  const line = lines.get(socket)
  if (!line?.current?.request.complete) return false
  line.isOver = true
  const last = line.waiting.at(-1)?.response ?? line.current.response
  if (!last.headersSent) last.setHeader('connection', 'close')
  return true
}
