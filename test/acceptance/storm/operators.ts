// Operators in a storm: they disable and enable, revoke and reset, decommission; and they help a device that asks for it.
import { type Reply, askOnce, persist } from './ask.ts'
import type { Storm } from './storm.ts'
import type { StormDevice } from './storm-device.ts'

const ANSWERED_WITHIN_MS = 400_000

/** An operator's request, until it is answered; the device's answers may be surprising for a while. */
export async function operate (storm: Storm, device: StormDevice, operation: string): Promise<Reply> {
  const path = `/v1/devices/${device.serialNumber}/${operation}`
  const reply = await persist(async () => {
    device.touchedAt = Date.now()
    return await askOnce(storm.url, path, { reason: 'storm' }, storm.fleet.operatorKey)
  }, ANSWERED_WITHIN_MS, ({ status, code }) => {
    if (code === 'internal-error' || code === 'aws-iot-refused') storm.wrong.push(`${device.serialNumber}: ${operation} was answered ${status} ${code}`)
  })
  device.touchedAt = Date.now()
  storm.weather.count(`operator ${operation}: ${reply.status} ${reply.code ?? ''}`.trim())
  return reply
}

/** Gives a device a new token. */
export async function reset (storm: Storm, device: StormDevice): Promise<void> {
  const { status, body: { registrationToken }, code } = await operate(storm, device, 'reset')
  if (registrationToken) device.giveToken(registrationToken)
  else if (code !== 'state-conflict') storm.wrong.push(`${device.serialNumber}: reset was refused: ${status} ${code}`)
}

/** One operator's day: wishes for devices that are theirs to touch. */
export async function operators (storm: Storm): Promise<void> {
  const { weather } = storm
  while (!weather.over.aborted) {
    await weather.sleep(200 + weather.random(storm.size.operatorEveryMs, 'operator'))
    const mine = storm.devices.filter(({ isUntouched, isDecommissioned }) => !isUntouched && !isDecommissioned)
    const device = mine[weather.random(mine.length, 'whose')]
    if (weather.over.aborted || !device) continue
    const what = weather.random(20, 'wish')
    if (what < 9) {
      await operate(storm, device, 'disable')
      await weather.sleep(weather.random(3_000, 'wish for'))
      await operate(storm, device, 'enable')
    } else if (what < 14) {
      await operate(storm, device, 'revoke')
      await weather.sleep(weather.random(3_000, 'wish for'))
      await reset(storm, device)
    } else if (what < 19 || mine.length < 4) await reset(storm, device)
    else {
      device.isDecommissioned = true
      await operate(storm, device, 'decommission')
    }
  }
}
