// A bundle of roots for devices: old clients are told one of it, as the old services did.
import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { startService } from '../fixtures/service.ts'

await t.test('the first is told', async t => {
  const service = await startService({ LEGACY_CVM: 'true', MAX_EVENT_LOOP_DELAY_MS: '600000' }, { amazonRoots: true })
  t.teardown(() => service.close())
  const { serialNumber, registrationToken: deviceToken } = await service.register()
  const { RootCA } = (await service.app.service.inject(`/getcert?${new URLSearchParams({ serialNumber, deviceToken })}`)).json()
  t.match(new X509Certificate(RootCA).subject, /CN=Amazon Root CA 1$/)
  t.equal(RootCA.match(/BEGIN/g).length, 1)
})
