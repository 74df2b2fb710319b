// AWS IoT's limits: topics and filters in bytes of UTF-8, levels by slashes.
const MAX_BYTES = 256
const MAX_SLASHES = 7

/** A topic or filter that AWS takes. `$aws/` is the only reserved tree there is; the broker's own `$SYS` must not show. */
export function wellFormed (topic: string): boolean {
  return topic !== '' && Buffer.byteLength(topic) <= MAX_BYTES && topic.split('/').length - 1 <= MAX_SLASHES &&
    (!topic.startsWith('$') || topic.startsWith('$aws/'))
}

/** The same for a topic to publish to, which has no wildcards. */
export function publishable (topic: string): boolean {
  return wellFormed(topic) && !/[+#]/.test(topic)
}

/** Events are AWS's to publish: no policy and no signature opens them. */
export function isEvent (topic: string): boolean {
  return topic.startsWith('$aws/events/')
}

/** Whether a filter covers a topic. A wildcard in the first place covers no `$` topic (MQTT 3.1.1, 4.7.2). */
export function covers (filter: string, topic: string): boolean {
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  const wanted = filter.split('/')
  const levels = topic.split('/')
  for (const [at, level] of wanted.entries()) {
    if (level === '#') return true
    if (at >= levels.length || (level !== '+' && level !== levels[at])) return false
  }
  return wanted.length === levels.length
}
