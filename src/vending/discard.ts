import { CvmError } from '../errors.ts'
import type { ControlPlane } from './control-plane.ts'

interface DiscardDeps {
  controlPlane: Pick<ControlPlane, 'deleteUnbound' | 'revoke'>
  /** A time of its own for each call: the request's may be what has run out. */
  deadline: () => AbortSignal
  onLeftover: (what: 'certificate', requestId: string, cause: unknown, certificateId: string) => void
}

/** Deletes a certificate that was just made and is not in use; true when it is certainly gone. What is left is told by its id. */
export async function discard (certificateId: string, requestId: string, deps: DiscardDeps): Promise<boolean> {
  return tried(certificateId, requestId, deps, () => deps.controlPlane.deleteUnbound(certificateId, deps.deadline()))
}

/**
 * As {@link discard}, for a certificate that no write has named. Where AWS IoT refuses to delete it, as it does an ACTIVE one, it is
 * revoked first, because nothing else would ever end it. Not for one that may have been recorded: its device may be using it by now.
 */
export async function discardUnrecorded (certificateId: string, requestId: string, deps: DiscardDeps): Promise<boolean> {
  const { controlPlane, deadline } = deps
  return tried(certificateId, requestId, deps, () => controlPlane.deleteUnbound(certificateId, deadline()).catch(async (cause: unknown) => {
    if (!(cause instanceof CvmError && cause.code === 'aws-iot-refused')) throw cause
    await controlPlane.revoke(certificateId, deadline())
    await controlPlane.deleteUnbound(certificateId, deadline())
  }))
}

async function tried (certificateId: string, requestId: string, { onLeftover }: DiscardDeps, work: () => Promise<void>): Promise<boolean> {
  try {
    await work()
    return true
  } catch (cause) {
    onLeftover('certificate', requestId, cause, certificateId)
    return false
  }
}
