// A table of an earlier service is taken over by the command line: first as a rehearsal, then for good; again, nothing is left to do.
import t from 'tap'
import { CLI, folder } from './processes.ts'
import { onBestEngine, startService } from './service-process.ts'
import { keyAndCsr, tool, vendBody } from './tools.ts'

t.setTimeout(900_000)

await onBestEngine(t, async (t, engine) => {
  const service = await startService(t, engine)
  const dir = folder(t)
  const devices = [await service.register(), await service.register(), await service.register({ registrationToken: '12345678' })]
  const migrate = async (...args: string[]) => {
    const env = { PATH: process.env['PATH'] ?? '', CVM_LOCAL_DIR: service.dir, XDG_CONFIG_HOME: dir, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' }
    const ended = await tool(process.execPath, [CLI, 'operator', 'migrate', ...args], undefined, { cwd: dir, env })
    for (const { registrationToken } of devices) t.notMatch(ended.stdout + ended.stderr, registrationToken, 'no token is told')
    return ended
  }
  t.match(await migrate('--dry-run'), { code: 0, stdout: /rows +3\n[^]*would-migrate +3\n/ })
  t.ok(JSON.stringify(await service.rows()).includes('deviceToken'), 'a rehearsal changes nothing')
  const done = await migrate()
  t.match(done, { code: 0, stdout: new RegExp(`${devices[2]?.serialNumber} +migrated +REGISTERED +weak-token[^]*migrated +3`) })
  t.notOk(JSON.stringify(await service.rows()).includes('deviceToken'), 'no plain token is left')
  t.match(await migrate(), { code: 0, stdout: /^rows +0\n$/ })

  const [device] = devices
  if (!device) return
  const { csr } = await keyAndCsr(dir, device.serialNumber)
  const { stdout } = await tool('curl', ['--silent', '--cacert', service.rootCa, '-H', 'content-type: application/json', '-d', '@-', `${service.serviceUrl}/v1/certificates`], vendBody(device, csr))
  t.match(JSON.parse(stdout), { serialNumber: device.serialNumber, certificatePem: /BEGIN CERTIFICATE/ }, 'its token works as before')
})
