/** The parts of the set-up that are looked at, as metrics name them. */
export const SETUP_PARTS = ['table', 'key', 'index', 'ttl', 'policy'] as const
type SetupPart = typeof SETUP_PARTS[number]

/** Something that the service needs in AWS, and that is certainly missing or made differently. */
export interface SetupFault {
  part: SetupPart
  dependency: 'dynamodb' | 'aws-iot'
  /** Whether the service cannot do its work without it: then it does not start, and is not ready. */
  isFatal: boolean
  /** What is missing, and how to mend it; for operators. */
  text: string
}

/** One look at one thing in AWS. */
export interface SetupCheck {
  /** What is looked at, such as "the table devices". */
  subject: string
  /** The IAM action that looking needs. */
  action: string
  dependency: SetupFault['dependency']
  /** What is missing for certain; none where all is well. Rejects with AWS's error where AWS does not say. */
  look: (signal: AbortSignal) => Promise<SetupFault[]>
}
