import type { Transform } from 'node:stream'

export default class Reporter extends Transform {}
