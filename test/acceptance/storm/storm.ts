// A storm: replicas of the service behind a rough network, and the people and devices that work with them all the same.
import { setTimeout as delay } from 'node:timers/promises'
import { type LineResult, postBatch } from '../batch-client.ts'
import { unfinished } from '../fleet.ts'
import type { Vended } from '../tools.ts'
import { askOnce } from './ask.ts'
import { operate, reset } from './operators.ts'
import type { Scene } from './scene.ts'
import { StormDevice } from './storm-device.ts'

/** Generous: what reconcile could not finish it tries again later each time. */
const SETTLED_WITHIN_MS = 1_200_000

export class Storm {
  readonly devices: StormDevice[] = []
  readonly #scene: Scene

  constructor (scene: Scene) {
    this.#scene = scene
  }

  async register (way: 'csr' | 'keys', isUntouched: boolean): Promise<StormDevice> {
    const scene = this.#scene
    const help = async (device: StormDevice, code: string | undefined) => await this.#help(device, code)
    const device = new StormDevice(scene, await scene.fleet.aws.register(), { way, isUntouched, help })
    this.devices.push(device)
    return device
  }

  /** Devices that live through the storm, each at its own pace. */
  async live (device: StormDevice): Promise<void> {
    while (!this.#scene.weather.over.aborted && !device.isDecommissioned) {
      await device.work()
      await this.#scene.weather.sleep(this.#scene.weather.random(this.#scene.size.idleMs, 'idle'))
    }
  }

  /** What an operator does for a device that cannot help itself. */
  async #help (device: StormDevice, code: string | undefined): Promise<void> {
    await this.#scene.weather.sleep(1_000)
    if (device.isDecommissioned) return
    this.#scene.weather.count('help')
    if (code === 'device-disabled') await operate(this.#scene, device, 'enable')
    else await reset(this.#scene, device)
  }

  /** A line: batches of new devices, each sent again until every line is vended. */
  async line (): Promise<void> {
    const { fleet: { lineKey }, url, size, weather } = this.#scene
    for (let n = 0; n < size.batches && !weather.over.aborted; n++) {
      const devices = await Promise.all(Array.from({ length: size.batch }, () => this.register('csr', true)))
      const left = new Map(await Promise.all(devices.map(async device => [device.serialNumber, await device.request()] as const)))
      while (left.size > 0) {
        const lines = [...left.values()].map(({ line }) => line)
        // What ends it before its end is the weather's doing: what was not answered is sent again.
        await postBatch({ url, key: lineKey }, lines, result => this.#lineEnded(result, left)).catch(() => undefined)
        if (left.size > 0) await delay(300)
      }
      await weather.sleep(weather.random(size.ms / size.batches, 'batch'))
    }
  }

  #lineEnded (result: LineResult, left: Map<string, { take: (vended: Vended) => void }>): void {
    const { serialNumber, status, code } = result
    this.#scene.weather.count(`batch line: ${status} ${code ?? ''}`.trim())
    if (status === 'refused') this.#scene.wrong.push(`${serialNumber}: a line of a batch was refused: ${code}`)
    if (status === 'vended' || status === 'replayed') left.get(serialNumber)?.take({ endpoint: new URL(this.#scene.fleet.aws.mqttUrl).host, rootCaPem: '', ...result } as unknown as Vended)
    if (status !== 'failed') left.delete(serialNumber)
  }

  /**
   * After the storm: helps each device until the registry and the device say the same, and reconcile has nothing left to do. What is
   * wrong where that does not come.
   */
  async settle (): Promise<void> {
    const deadline = Date.now() + SETTLED_WITHIN_MS
    for (let isQuiet = false; !isQuiet;) {
      const settled = await Promise.all(this.devices.map(device => this.#settleOne(device)))
      const left = await unfinished(this.#scene.fleet, 2_000).catch((cause: unknown) => ({ actions: [cause], backlog: 0, drift: 0 }))
      isQuiet = settled.every(Boolean) && left.actions.length === 0 && left.backlog === 0 && left.drift === 0
      if (isQuiet) return
      if (Date.now() > deadline) {
        const unserved = this.devices.filter((_device, n) => !settled[n]).map(({ serialNumber }) => serialNumber)
        this.#scene.wrong.push(`not settled: ${unserved.join()} ${JSON.stringify(left)}`)
        return
      }
      await delay(500)
    }
  }

  /** Whether the device and the registry agree; if not, does what a person would do about it. */
  async #settleOne (device: StormDevice): Promise<boolean> {
    const { body: { state, certificateId } } = await askOnce(this.#scene.url, `/v1/devices/${device.serialNumber}`, undefined, this.#scene.fleet.operatorKey)
    if (state === undefined) return false
    if (device.isDecommissioned) {
      if (state === 'DECOMMISSIONED') return true
      await operate(this.#scene, device, 'decommission')
    } else if (state === 'ACTIVE' && device.held?.certificateId === certificateId) return true
    else if (state === 'DISABLED') await operate(this.#scene, device, 'enable')
    else if (state === 'REVOKED') await reset(this.#scene, device)
    else await device.work()
    return false
  }
}
