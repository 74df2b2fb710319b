// Tells how a run of tap goes: a line for each file as it ends, what failed in it, and at the end what was left out and the counts.
// Plain JavaScript, because tap's runner loads it before anything reads TypeScript.
import { Transform } from 'node:stream'
import { Parser } from 'tap-parser'
import { stringify } from 'yaml'

const NO_TESTS = 'no tests found'
/** Where compiled copies of the tests are, for a Node that does not read TypeScript. */
const COPIES = /node_modules\/\.cache\/javascript\/(test\/\S+)\.js\b/g
/** As many as run at once, so that each has ended when as many have said so. tap puts its settings into the environment. */
const RUNNING_FILES = Number(process.env.TAP_JOBS)

/** The `reporter` of `.taprc`: tap writes TAP to it, and it writes the report. */
export default class Reporter extends Transform {
  #sum = { passed: 0, failed: 0 }
  /** What the file that is being read has said so far. */
  #file = newFile()
  #leftOut = []
  #interrupted
  #endedSince = 0
  #parser = new Parser()

  constructor () {
    super()
    // The parser says `assert` of a file's closing point first, and may say `pass`, `fail` or `skip` of it afterwards.
    const closings = new WeakSet()
    const ofTests = (event, take) => this.#parser.on(event, result => { if (!closings.has(result)) take(result) })
    ofTests('pass', () => { this.#file.passed++ })
    ofTests('fail', result => { this.#file.failures.push(result) })
    ofTests('skip', result => { this.#file.skips.push(result) })
    this.#parser.on('assert', result => {
      closings.add(result)
      this.#fileEnded(result)
    })
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => { this.#interrupted ??= signal })
    this.#parser.on('bailout', reason => { this.push(`Bail out! ${reason}\n`) })
  }

  _transform (chunk, _encoding, done) {
    this.#parser.write(chunk)
    done()
  }

  _flush (done) {
    this.#parser.on('complete', ({ ok }) => {
      if (this.#leftOut.length > 0) this.push(`\nleft out:\n${this.#leftOut.map(line => `  ${line}\n`).join('')}\n`)
      // A run that makes no assertion has tested nothing; one that was ended early has failed.
      if (this.#sum.failed > 0 || this.#sum.passed === 0 || !ok) process.exitCode = 1
      this.push(`${this.#sum.passed} passed, ${this.#sum.failed} failed\n`)
      done()
    })
    this.#parser.end()
  }

  /** @param closing the test point that tap makes of a file's exit code, signal and plan */
  #fileEnded (closing) {
    if (this.#interrupted) {
      this.#stopEarly()
      return
    }
    const { passed, failures, skips } = this.#file
    this.#file = newFile()
    if (!closing.ok && failures.length === 0) failures.push(closing)
    // A file without an assertion has failed, but not one that says why it is left out. tap's own reason says only that there was none.
    const reasons = (closing.skip && skips.length === 0 ? [closing] : skips).filter(({ skip }) => skip !== NO_TESTS)
    const isSilent = closing.ok && passed + failures.length + reasons.length === 0
    const failed = isSilent ? 1 : failures.length
    this.#sum.passed += passed
    this.#sum.failed += failed
    const seconds = ((closing.time ?? 0) / 1000).toFixed(1)
    this.push(`${failed === 0 ? 'ok' : 'NOT OK'} ${sourceOf(closing.name)} ${passed} in ${seconds} s\n`)
    if (isSilent) this.push('  it made no assertion\n')
    for (const failure of failures) this.push(indented(`not ok ${titleOf(failure)}\n${failure.diag ? indented(stringify(failure.diag)) : ''}`))
    this.#leftOut.push(...reasons.map(result => `${titleOf(result)} (${result.skip === true ? 'no reason given' : result.skip})`))
  }

  /** tap hands the signal on to what runs, but would go on to start each of the files that wait. */
  #stopEarly () {
    this.#endedSince++
    if (this.#endedSince !== RUNNING_FILES) return
    this.push(`interrupted by ${this.#interrupted}\n${this.#sum.passed} passed, ${this.#sum.failed + 1} failed\n`)
    setImmediate(() => {
      process.removeAllListeners(this.#interrupted)
      process.kill(process.pid, this.#interrupted)
    })
  }
}

function sourceOf (title) {
  return title.replace(COPIES, '$1.ts')
}

function newFile () {
  return { passed: 0, failures: [], skips: [] }
}

function titleOf ({ fullname, name }) {
  return sourceOf(fullname.endsWith(name) ? fullname : `${fullname} > ${name}`)
}

function indented (text) {
  return text.trimEnd().split('\n').map(line => `  ${line}\n`).join('')
}
