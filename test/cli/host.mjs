// Runs command lines of the built `cvm`, one after the other in this one process, as `command.ts` sends them.
import { runCvm } from '../../dist/cli/program.js'

process.on('message', async ({ args, env }) => {
  for (const name of Object.keys(process.env)) if (!(name in env)) delete process.env[name]
  Object.assign(process.env, env)
  const said = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr']) {
    process[name].write = (chunk, encoding, done = encoding) => {
      said[name] += chunk
      if (typeof done === 'function') process.nextTick(done)
      return true
    }
  }
  const status = await runCvm(args)
  process.send({ status, ...said })
})
process.on('disconnect', () => process.exit())
