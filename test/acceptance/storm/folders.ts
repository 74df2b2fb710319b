// `cvm` in a storm: enrols, renews and vends a line, is killed and stopped at random, and runs again. Its folder holds a pair that works.
import { X509Certificate, createHash, createPrivateKey } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DescribeCertificateCommand } from '@aws-sdk/client-iot'
import type { Test } from 'tap'
import { until } from '../../fixtures/until.ts'
import { CLI, type Exit, start } from '../processes.ts'
import type { Scene } from './scene.ts'

const KEY = 'iot-private.pem.key'
const CERTIFICATE = 'iot-certificate.pem.crt'
const WORKS_WITHIN_MS = 300_000

/** What a device of a folder must end with. */
export interface Folder { readonly serialNumber: string, readonly path: string }

/** The certificate of a folder, where its key is there and is that of it. */
export function pairOf (path: string): { certificateId: string, cert: string, key: string } | undefined {
  if (![KEY, CERTIFICATE].every(name => existsSync(join(path, name)))) return undefined
  const [key, cert] = [KEY, CERTIFICATE].map(name => readFileSync(join(path, name), 'utf8')) as [string, string]
  const certificate = new X509Certificate(cert)
  if (!certificate.checkPrivateKey(createPrivateKey(key))) return undefined
  return { certificateId: createHash('sha256').update(certificate.raw).digest('hex'), cert, key }
}

export class Folders {
  readonly #t: Test
  readonly #scene: Scene
  readonly #dir: string

  constructor (t: Test, scene: Scene, dir: string) {
    this.#t = t
    this.#scene = scene
    this.#dir = dir
  }

  /** A device that is enrolled and then renewed again and again. */
  async device (): Promise<Folder> {
    const { fleet, weather, size } = this.#scene
    const { serialNumber, registrationToken } = await fleet.aws.register()
    const path = join(this.#dir, serialNumber)
    await this.#untilDone(serialNumber, ['device', 'enroll', '--serial', serialNumber, '--out', path], { CVM_REGISTRATION_TOKEN: registrationToken })
    await this.#mustWork({ serialNumber, path })
    do {
      await this.#untilDone(serialNumber, ['device', 'renew', '--dir', path], {}, async () => await this.#mustWork({ serialNumber, path }))
      weather.count('cvm renewed')
      await weather.sleep(2_000 + weather.random(size.idleMs, 'folder idle'))
    } while (!weather.over.aborted)
    // Once more in calm weather: from the folder as the storm left it.
    await this.#untilDone(serialNumber, ['device', 'renew', '--dir', path], {})
    return { serialNumber, path }
  }

  /** A line's folder with many devices. */
  async line (): Promise<Folder[]> {
    const { fleet: { aws, lineKey }, size } = this.#scene
    const devices = await Promise.all(Array.from({ length: size.lineDevices }, () => aws.register()))
    const [file, out] = [join(this.#dir, 'line.csv'), join(this.#dir, 'line')]
    mkdirSync(this.#dir, { recursive: true })
    writeFileSync(file, `serialNumber,registrationToken\n${devices.map(({ serialNumber, registrationToken }) => `${serialNumber},${registrationToken}\n`).join('')}`)
    await this.#untilDone('line', ['line', 'vend', file, '--out', out, '--generate-keys', '--chunk', '5'], { CVM_API_KEY: lineKey })
    return devices.map(({ serialNumber }) => ({ serialNumber, path: join(out, serialNumber) }))
  }

  /** One pair of the folder works, the one in its place or the next one; what was cut off the service may still be finishing. */
  async #mustWork ({ serialNumber, path }: Folder): Promise<void> {
    const works = await until(async () => {
      const pairs = [pairOf(path), pairOf(join(path, 'next'))].filter(pair => pair !== undefined)
      const statuses = await Promise.all(pairs.map(({ certificateId }) => this.#statusOf(certificateId)))
      return statuses.includes('ACTIVE')
    }, WORKS_WITHIN_MS)
    if (!works) this.#scene.wrong.push(`${serialNumber}: no pair in the folder works`)
  }

  /** Runs it until it is done, whatever ends it before; sometimes twice at once. */
  async #untilDone (what: string, args: readonly string[], env: Record<string, string>, afterwards = async () => {}): Promise<void> {
    const { weather } = this.#scene
    for (let exit: Exit = 1; exit !== 0;) {
      const isTwice = weather.happens('cvm twice at once', 1_500)
      const runs = await Promise.all(Array.from({ length: isTwice ? 2 : 1 }, () => this.#run(args, env)))
      exit = runs.some(run => run.exit === 0) ? 0 : runs[0]!.exit
      for (const run of runs) {
        const isBusy = /is (in use by another cvm|being written by another) process/.test(run.output)
        weather.count(`cvm ${args[1]}: ${isBusy ? 'in use' : run.exit}`)
        if (isBusy ? !isTwice : run.exit !== 0 && run.exit !== 4 && run.exit !== 'SIGKILL' && args[0] !== 'line') {
          this.#scene.wrong.push(`${what}: cvm ${args.slice(0, 2).join(' ')} ended with ${run.exit}: ${run.output}`)
        }
      }
      await afterwards()
      if (exit === 3 || (exit === 1 && args[0] !== 'line' && !isTwice)) return
    }
  }

  async #run (args: readonly string[], env: Record<string, string>): Promise<{ exit: Exit, output: string }> {
    const { weather, url } = this.#scene
    const cvm = start(this.#t, process.execPath, [CLI, ...args, '--url', url, '--timeout', '60'], { ...env, CVM_LOCAL_DIR: '/nonexistent', XDG_CONFIG_HOME: '/nonexistent' })
    const isKilled = weather.happens('cvm killed', 4_000)
    if (isKilled || weather.happens('cvm stopped', 1_000)) {
      await Promise.race([cvm.ended, weather.sleep(200 + weather.random(1_500, 'cvm killed after'))])
      cvm.signal(isKilled ? 'SIGKILL' : 'SIGSTOP')
      if (!isKilled) await weather.sleep(weather.random(8_000, 'cvm stopped for'))
      cvm.signal('SIGCONT')
    }
    return { exit: await cvm.ended, output: cvm.output() }
  }

  async #statusOf (certificateId: string): Promise<string | undefined> {
    try {
      const { certificateDescription } = await this.#scene.fleet.aws.iot.send(new DescribeCertificateCommand({ certificateId }))
      return certificateDescription?.status
    } catch (error) {
      if ((error as Error).name !== 'ResourceNotFoundException') throw error
      return undefined
    }
  }
}
