// The process itself: until it is ready, what it holds in memory, and how fast the local AWS IoT Core can issue for the others here.
import { LOCAL_AWS, folder, has, pin, spawned } from './children.ts'
import { type Result, type Size, cpuMsOf, crowd, resultOf, rssMbOf } from './harness.ts'
import { clientOf, material, mustBe, startOnAnswers, startServer } from './service.ts'

const NOWHERE = { AWS_ENDPOINT_URL_DYNAMODB: 'http://127.0.0.1:9', AWS_ENDPOINT_URL_IOT: 'http://127.0.0.1:9' }
const IN_FLIGHT = 64
/** The local AWS lets any key in, and checks no signature. */
const SIGNED = { authorization: 'AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/iot/aws4_request, SignedHeaders=host, Signature=00' }

/** From starting the process to the line that says it listens. */
export async function startUp ({ rounds }: Size): Promise<Result[]> {
  const seconds: number[] = []
  for (let round = 0; round < rounds; round++) {
    const began = performance.now()
    const service = await startServer(NOWHERE)
    seconds.push((performance.now() - began) / 1000)
    await service.stop()
  }
  return [resultOf({ what: 'start-up to ready', against: '', atMost: 2 }, seconds, { unit: 's' })]
}

export async function memory ({ rounds, scale }: Size): Promise<Result[]> {
  const [idle, loaded]: [number[], number[]] = [[], []]
  for (let round = 0; round < Math.min(rounds, 3); round++) {
    const { service, bodyOf, stop } = await startOnAnswers(0)
    idle.push(rssMbOf(service.pid))
    const client = clientOf(service.url, IN_FLIGHT)
    let most = 0
    await crowd(IN_FLIGHT, Math.ceil(2_000 * scale), async n => {
      mustBe(201, await client.post(bodyOf()))
      if (n % 50 === 0) most = Math.max(most, rssMbOf(service.pid))
    })
    loaded.push(most)
    await Promise.all([client.close(), stop()])
  }
  return [
    resultOf({ what: 'resident memory, idle', against: '' }, idle, { unit: 'MB' }),
    resultOf({ what: `resident memory at most, ${IN_FLIGHT} vends in flight`, against: '' }, loaded, { unit: 'MB' })
  ]
}

/** Certificates for each second of one core; every other measurement here needs far fewer. */
export async function issueRate ({ rounds, scale }: Size): Promise<Result[]> {
  if (!has('taskset')) {
    console.log('left out, because taskset is not installed: the issue rate of the local AWS IoT Core')
    return []
  }
  const settings = { CVM_LOCAL_DIR: folder(), LOCAL_IOT_PORT: '0', LOCAL_MQTT_PORT: '0', LOCAL_DYNAMODB_PORT: 'off' }
  const local = await spawned(process.execPath, [LOCAL_AWS], { env: settings }, output => /AWS IoT API +(\S+)\n/.exec(output)?.[1])
  pin(local.pid, 0)
  const client = clientOf(local.found, 8, '/certificates?setAsActive=false')
  const body = JSON.stringify({ certificateSigningRequest: material().csr })
  const rates: number[] = []
  const times = Math.ceil(2_000 * scale)
  const issue = () => crowd(8, times, async () => mustBe(200, await client.post(body, SIGNED)))
  await issue()
  for (let round = 0; round < rounds; round++) {
    const before = cpuMsOf(local.pid)
    await issue()
    rates.push(times * 1000 / Math.max(10, cpuMsOf(local.pid) - before))
  }
  await Promise.all([client.close(), local.stop()])
  return [resultOf({ what: 'the local AWS IoT Core: certificates (P-256) a second of CPU', against: '', atLeast: 1_000 }, rates)]
}
