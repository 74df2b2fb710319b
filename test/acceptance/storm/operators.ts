// Operators in a storm: they disable and enable, revoke and reset, decommission; and they help a device that asks for it.
import { type Reply, askOnce, persist } from './ask.ts'
import type { Scene } from './scene.ts'
import type { StormDevice } from './storm-device.ts'

const ANSWERED_WITHIN_MS = 400_000

/** An operator's request, until it is answered; the device's answers may be surprising for a while. */
export async function operate (scene: Scene, device: StormDevice, operation: string): Promise<Reply> {
  const path = `/v1/devices/${device.serialNumber}/${operation}`
  const reply = await persist(async () => {
    device.touchedAt = Date.now()
    return await askOnce(scene.url, path, { reason: 'storm' }, scene.fleet.operatorKey)
  }, ANSWERED_WITHIN_MS, ({ status, code }) => {
    if (code === 'internal-error' || code === 'aws-iot-refused') scene.wrong.push(`${device.serialNumber}: ${operation} was answered ${status} ${code}`)
  })
  device.touchedAt = Date.now()
  scene.weather.count(`operator ${operation}: ${reply.status} ${reply.code ?? ''}`.trim())
  return reply
}

/** Gives a device a new token. */
export async function reset (scene: Scene, device: StormDevice): Promise<void> {
  const { status, body: { registrationToken }, code } = await operate(scene, device, 'reset')
  if (registrationToken) device.giveToken(registrationToken)
  else if (code !== 'state-conflict') scene.wrong.push(`${device.serialNumber}: reset was refused: ${status} ${code}`)
}

/** One operator's day: wishes for devices that are theirs to touch. */
export async function operators (scene: Scene, devices: readonly StormDevice[]): Promise<void> {
  const { weather } = scene
  while (!weather.over.aborted) {
    await weather.sleep(200 + weather.random(scene.size.operatorEveryMs, 'operator'))
    const mine = devices.filter(({ isUntouched, isDecommissioned }) => !isUntouched && !isDecommissioned)
    const device = mine[weather.random(mine.length, 'whose')]
    if (weather.over.aborted || !device) continue
    const what = weather.random(20, 'wish')
    if (what < 9) {
      await operate(scene, device, 'disable')
      await weather.sleep(weather.random(3_000, 'wish for'))
      await operate(scene, device, 'enable')
    } else if (what < 14) {
      await operate(scene, device, 'revoke')
      await weather.sleep(weather.random(3_000, 'wish for'))
      await reset(scene, device)
    } else if (what < 19 || mine.length < 4) await reset(scene, device)
    else {
      device.isDecommissioned = true
      await operate(scene, device, 'decommission')
    }
  }
}
