import { CvmError, ERRORS } from '../errors.ts'

/** A failure that the caller must mend, as against one of the service. */
export function isRefused (cause: unknown): cause is CvmError {
  return cause instanceof CvmError && ERRORS[cause.code].status < 500
}

/** What a failure is called; one that is not in the table is the service's own. */
export function toFailure (cause: unknown): { code: string } {
  return cause instanceof CvmError ? cause : { code: 'internal-error' }
}
