import { CvmError, ERRORS, type ErrorCode } from '../errors.ts'
import type { Csr } from '../x509/csr.ts'
import { DEFAULT_PRODUCT, type VendWay } from './device.ts'
import type { DeviceRegistry } from './device-registry.ts'
import type { KeyOwners } from './key-owners.ts'
import { lookAtKey } from './key-reuse.ts'
import { foresee } from './lifecycle.ts'
import { type Products, refusalsOf } from './product.ts'
import type { Registration } from './register.ts'
import { findOrFault } from './unreadable-device.ts'
import { type TokenHasher, refuseWeak, tokenMatches } from './registration-token.ts'
import { type VendRequest, type Vended, check } from './vend-steps.ts'

/** What a line of a batch asks for: a vend, of a device that it may register where its product allows that. */
type BatchLine = Pick<VendRequest, 'serialNumber' | 'registrationToken' | 'certificateSigningRequest'> & { product?: string }

/** Which line it is, and until when it may begin something. */
interface Place { line: number, stop: AbortSignal, callerGone: AbortSignal }

export interface VendBatchDeps {
  vend: (request: VendRequest) => Promise<Vended>
  register: (registration: Registration) => Promise<void>
  registry: Pick<DeviceRegistry, 'find'>
  keyOwners: Pick<KeyOwners, 'find'>
  hashToken: TokenHasher
  products: Products
  now: () => number
  /** Resolves when a line can be served soon, with what to call once it has ended; raises `CvmError` at `stop`. */
  admit: (way: VendWay, stop: AbortSignal) => Promise<() => void>
  /** Resolves after so many milliseconds, or at `stop`. */
  pause: (ms: number, stop: AbortSignal) => Promise<void>
}

/** One batch. Every method raises the `CvmError` that a line is refused or fails with; the others are not touched by it. */
export interface Batch {
  /** Vends for one line, within about a minute; what has failed by then may be sent again. */
  vend: (line: BatchLine, place: Place) => Promise<Vended>
  /** What `vend` would do, from a look at the device: nothing is written anywhere. */
  foresee: (line: BatchLine, place: Pick<Place, 'line'>) => Promise<'vend' | 'replay'>
}

/** How long one line is tried from when it begins, so that a moment's trouble does not fail it. */
const LINE_MS = 60_000

/** Between two tries, at least; doubled each time up to the longest. */
const PAUSE_MS = 250
const LONGEST_PAUSE_MS = 4_000

/** Failures that pass. */
const PASSING: ReadonlySet<ErrorCode> = new Set([
  'vend-in-progress', 'aws-iot-throttled', 'aws-iot-unavailable', 'registry-unavailable', 'deadline-exceeded'
])

/** A batch remembers the serial numbers of its lines, so that each device is vended for once. */
export function openBatch (requestId: string, deps: VendBatchDeps): Batch {
  const lines = new Map<string, number>()
  const refuseAgain = ({ serialNumber }: BatchLine, line: number) => {
    const first = lines.get(serialNumber)
    if (first !== undefined) throw new CvmError('duplicate-in-batch', { detail: `the same serial number is in line ${first}` })
    lines.set(serialNumber, line)
  }
  return {
    async vend (line, place) {
      refuseAgain(line, place.line)
      return vendLine(line, requestId, place, deps)
    },
    async foresee (line, place) {
      refuseAgain(line, place.line)
      return foreseeLine(line, deps)
    }
  }
}

async function vendLine (line: BatchLine, requestId: string, { stop, callerGone }: Place, deps: VendBatchDeps): Promise<Vended> {
  const csr = check(line, deps.products)
  const { product, ...device } = line
  const request = { ...device, requestId, callerGone }
  let deadline: number | undefined
  for (let pauseMs = PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const ended = await deps.admit(wayOf(csr), stop)
    deadline ??= deps.now() + LINE_MS
    try {
      const refusal = await register(line, csr, deps)
      return await deps.vend(request).catch((cause: unknown) => { throw refusal && codeOf(cause) === 'device-not-authorized' ? refusal : cause })
    } catch (cause) {
      const waitMs = Math.max(pauseMs, (cause as Partial<CvmError>).retryAfterMs ?? 0)
      if (!PASSING.has(codeOf(cause) as ErrorCode) || deps.now() + waitMs > deadline) throw cause
      ended()
      await deps.pause(waitMs, stop)
      if (stop.aborted) throw cause
    } finally {
      ended()
    }
  }
}

/**
 * Registers the device where it is unknown and the line's product allows it. What speaks against that is the result: it is told only if
 * there is no such device, because one that is there is judged by its own product.
 */
async function register (line: BatchLine, csr: Csr | undefined, deps: VendBatchDeps): Promise<CvmError | undefined> {
  const { serialNumber, registrationToken, product } = line
  if (product === undefined) return undefined
  try {
    refuseNew(line, csr, deps.products)
    await deps.register({ serialNumber, registrationToken, product })
    return undefined
  } catch (cause) {
    if (!(cause instanceof CvmError) || ERRORS[cause.code].status >= 500) throw cause
    return ['device-exists', 'device-not-authorized'].includes(cause.code) ? undefined : cause
  }
}

/** Raises what speaks against registering the device of a line. */
function refuseNew ({ serialNumber, registrationToken, product: name }: BatchLine, csr: Csr | undefined, products: Products): void {
  const product = name === undefined ? undefined : products.get(name)
  if (name !== undefined && !product) throw new CvmError('unknown-product')
  if (!product?.lineRegistration) throw new CvmError('device-not-authorized')
  const refusal = refusalsOf(new Map([[product.name, product]]), { serialNumber }, csr).get(product.name)
  if (refusal) throw refusal
  refuseWeak(registrationToken)
}

async function foreseeLine (line: BatchLine, deps: VendBatchDeps): Promise<'vend' | 'replay'> {
  const { registry, hashToken, products, now } = deps
  const { serialNumber, registrationToken, product = DEFAULT_PRODUCT } = line
  const csr = check(line, products)
  const { device, unreadable } = await findOrFault(registry, serialNumber)
  if (unreadable && tokenMatches(unreadable.proofs, hashToken(serialNumber, registrationToken), hashToken)) throw unreadable
  if (unreadable) throw new CvmError('device-not-authorized')
  if (!device) {
    refuseNew(line, csr, products)
    await lookAtKeyOf(csr, { serialNumber, product }, deps)
    return 'vend'
  }
  if (!tokenMatches(device, hashToken(serialNumber, registrationToken), hashToken)) throw new CvmError('device-not-authorized')
  const wish = { way: wayOf(csr), publicKeyFingerprint: csr?.publicKeyFingerprint }
  const foreseen = foresee(device, wish, { now: now(), products, refusals: refusalsOf(products, { serialNumber }, csr) })
  if (foreseen === 'vend') await lookAtKeyOf(csr, device, deps)
  return foreseen
}

async function lookAtKeyOf (csr: Csr | undefined, device: { serialNumber: string, product: string }, deps: VendBatchDeps): Promise<void> {
  if (csr) await lookAtKey({ device, publicKeyFingerprint: csr.publicKeyFingerprint }, deps)
}

function wayOf (csr: Csr | undefined): VendWay {
  return csr ? 'csr' : 'keys'
}

function codeOf (cause: unknown): ErrorCode | undefined {
  return cause instanceof CvmError ? cause.code : undefined
}
