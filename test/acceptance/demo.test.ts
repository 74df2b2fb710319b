// `npm run demo`, the first thing anybody runs: its story to the end, and nothing left behind.
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import t from 'tap'
import type { Test } from 'tap'
import { folder, start } from './processes.ts'

t.setTimeout(900_000)

/** What the story must say, in its order. */
const STORY = [
  /^ 1\. The service is up at https:\/\/localhost:\d+\. .* device demo-\w+/,
  /^ 2\. .* private key .* CSR/,
  /^ 3\. .* 201, certificate \w+/,
  /^ 4\. .* 200, the identical certificate/,
  /^ 5\. .* another key .* 409 already-vended/,
  /^ 6\. .* wrong token .* 401 device-not-authorized/,
  /^ 7\. .* connected to localhost:\d+ over MQTT .* acknowledged/,
  /^ 8\. .* without a certificate .* refused by the broker/,
  /^ 9\. .* signed itself.* refused by the broker/,
  /^10\. .* once more/,
  /^11\. .* ended cleanly/
]

async function demo (t: Test, signalWhen?: string) {
  const tmp = folder(t)
  const process = start(t, 'npm', ['run', '--silent', 'demo'], { TMPDIR: tmp }, true)
  if (signalWhen !== undefined) {
    await process.said(output => output.includes(signalWhen) || undefined)
    process.signal('SIGINT')
  }
  const exit = await process.ended
  return { exit, output: process.output(), left: readdirSync(tmp).filter(name => name.startsWith('cvm')) }
}

/** Whether anybody still listens at a port of this machine. */
function isOpen (port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true) })
    socket.once('error', () => resolve(false))
  })
}

await t.test('npm run demo', async t => {
  const { exit, output, left } = await demo(t)
  t.match({ exit, output }, { exit: 0 })
  const told = output.split('\n').filter(line => /^ ?\d+\. /.test(line))
  t.equal(told.length, STORY.length)
  for (const [i, line] of STORY.entries()) t.match(told[i], line, told[i] ?? '')
  t.match(output, 'npm start')
  t.notMatch(output, /Warning|Error|PRIVATE KEY|^\{/m, 'nothing but the story')
  t.strictSame(left, [], 'no file stays')
  const ports = [...output.matchAll(/localhost:(\d+)/g)].map(([, port]) => Number(port))
  t.equal(new Set(ports).size, 2, 'the ports of service and broker')
  for (const port of ports) t.notOk(await isOpen(port), `no process stays at ${port}`)
})

await t.test('Ctrl-C in the middle of the story leaves nothing either', async t => {
  const { exit, output, left } = await demo(t, ' 3. ')
  t.ok(exit !== 0 || output.includes('11. '), 'it does not end well, unless all was told before the signal came')
  t.strictSame(left, [])
  const [, port] = /https:\/\/localhost:(\d+)/.exec(output) ?? []
  t.notOk(await isOpen(Number(port)), 'no process stays')
})
