/** The HTTP destinations of the account's rules in AWS IoT. */
export interface RuleDestinations {
  /**
   * ConfirmTopicRuleDestination with the token of a challenge, then UpdateTopicRuleDestination to ENABLED, which confirming alone does
   * not do. May be repeated. Raises `CvmError('confirmation-rejected')` for a token that AWS IoT does not know or that is over.
   */
  confirm (destination: { arn: string, confirmationToken: string }, signal: AbortSignal): Promise<void>
}
