// What the vended files are for: mosquitto's own clients connect to the broker with them, and nobody else does.
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { UpdateCertificateCommand } from '@aws-sdk/client-iot'
import t from 'tap'
import type { Test } from 'tap'
import { openssl } from '../fixtures/openssl.ts'
import { folder } from './processes.ts'
import { type ServiceProcess, onEachEngine, startService } from './service-process.ts'
import { CUT_OFF, type DeviceFiles, type Vended, curl, hasMosquitto, keyAndCsr, mosquitto, storeVended, vendBody } from './tools.ts'

interface VendedDevice { thing: string, certificateId: string, files: Required<DeviceFiles> }

/** A device with its files, as vended. */
async function vendedDevice (t: Test, service: ServiceProcess): Promise<VendedDevice> {
  const dir = folder(t)
  const device = await service.register()
  const { keyFile, csr } = await keyAndCsr(dir, device.serialNumber)
  const { status, text } = await curl(`${service.serviceUrl}/v1/certificates`, { ca: service.rootCa, body: vendBody(device, csr) })
  if (status !== 201) throw new Error(`vending failed: ${text}`)
  const vended = JSON.parse(text) as Vended
  return { thing: vended.thingName, certificateId: vended.certificateId, files: storeVended(dir, vended, keyFile) }
}

/** A certificate for the device's own name that AWS IoT never issued: signed by itself, or by somebody's CA. */
async function foreignFiles (t: Test, files: DeviceFiles, thing: string, signer: 'itself' | 'a foreign CA'): Promise<DeviceFiles> {
  const dir = folder(t)
  const [keyFile, certFile] = [join(dir, 'foreign.key'), join(dir, 'foreign.crt')]
  const [caKey, caCert] = [join(dir, 'ca.key'), join(dir, 'ca.crt')]
  const make = async (key: string, certificate: string, subject: string, signing: string[]) => {
    const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-x509', '-days', '2']
    const { ok, stderr } = await openssl(['req', ...newKey, '-keyout', key, '-out', certificate, '-subj', subject, ...signing])
    if (!ok) throw new Error(`openssl req: ${stderr}`)
  }
  if (signer !== 'itself') await make(caKey, caCert, '/OU=Amazon Web Services', [])
  await make(keyFile, certFile, `/CN=${thing}`, signer === 'itself' ? [] : ['-CA', caCert, '-CAkey', caKey])
  return { ...files, keyFile, certFile }
}

if (await hasMosquitto(t)) {
  await onEachEngine(t, async (t, engine) => {
    const service = await startService(t, engine)
    const { thing, files } = await vendedDevice(t, service)
    const topic = `devices/${thing}/hello`
    /** QoS 1: mosquitto_pub ends with 0 only once the broker has acknowledged the message. */
    const publish = (files: DeviceFiles, { id = thing, to = topic } = {}) => mosquitto('mosquitto_pub', files, ['-i', id, '-t', to, '-q', '1', '-m', 'hello'])

    await t.test('publishes with the vended files, and the broker delivers', async t => {
      const { code, stderr } = await publish(files)
      t.equal(code, 0, `mosquitto_pub ends with 0 ${stderr}`)
      const message = randomUUID()
      const echo = await mosquitto('mosquitto_rr', files, ['-i', thing, '-t', topic, '-e', topic, '-q', '1', '-m', message, '-W', '15'])
      t.match(echo, { code: 0, stdout: message }, 'mosquitto_rr gets back what it published')
    })

    const { certFile, keyFile, ...none } = files
    const [other, paused] = [await vendedDevice(t, service), await vendedDevice(t, service)]
    await service.iot.send(new UpdateCertificateCommand({ certificateId: paused.certificateId, newStatus: 'INACTIVE' }))
    const refused: [string, () => ReturnType<typeof publish>][] = [
      ['without a certificate', async () => await publish(none)],
      ['with a certificate that it signed itself', async () => await publish(await foreignFiles(t, files, thing, 'itself'))],
      ['with a certificate that a foreign CA signed', async () => await publish(await foreignFiles(t, files, thing, 'a foreign CA'))],
      ['with a vended certificate that AWS IoT holds as INACTIVE', async () => await publish(paused.files, { id: paused.thing, to: `devices/${paused.thing}/hello` })],
      ['under another client id', async () => await publish(files, { id: `${thing}-2` })],
      ['under the client id of another device', async () => await publish(files, { id: other.thing, to: `devices/${other.thing}/hello` })],
      ['to a topic of another device', async () => await publish(files, { to: `devices/${other.thing}/hello` })],
      ['to a topic outside the policy', async () => await publish(files, { to: 'hello' })]
    ]
    for (const [how, attempt] of refused) {
      await t.test(`refused ${how}`, async t => {
        const began = performance.now()
        const { code, stderr } = await attempt()
        t.not(code, 0, `mosquitto_pub ends with ${code} after ${Math.round(performance.now() - began)} ms`)
        t.match(stderr, CUT_OFF, 'because the broker ended the connection')
        t.equal((await publish(files)).code, 0, 'while the device itself still publishes')
      })
    }
  })
}
