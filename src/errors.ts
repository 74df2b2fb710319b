/**
 * Every failure a caller can meet, in one table: the stable `code`, its HTTP status, what it is called and what to do about it.
 * The README's error table is checked against this one by a test.
 */
const TABLE = {
  'malformed-json': entry(400, 'The body is not valid JSON', 'Send one JSON object.'),
  'invalid-request': entry(400, 'The request does not fit the schema', 'Correct what `detail` and `errors` name.'),
  'unknown-product': entry(400, 'There is no product of this name', 'Use a product of the service\'s products file, or leave it out for `default`.'),
  'weak-token': entry(400, 'The registration token is too weak', 'Use 16 to 256 printable ASCII characters without spaces, at least 8 of them different; or leave it out to have one made.'),
  'csr-rejected': entry(400, 'The certificate signing request was refused', 'Make a new CSR that follows `detail`; `reason` is stable.'),
  'certificate-rejected': entry(400, 'The certificate cannot be used', 'Send a certificate that follows `detail`; `reason` is stable.'),
  'certificate-not-trusted': entry(400, 'The certificate does not lead to the authority', 'Have the authority issue a new one that follows `detail`; `reason` is stable.'),
  'confirmation-rejected': entry(400, 'AWS IoT does not take the confirmation token', 'Have AWS IoT send a new challenge: `aws iot update-topic-rule-destination --status IN_PROGRESS`.'),
  'authority-rejected': entry(400, 'The CA certificate, or what came with it, was refused', 'Correct what `detail` names; `reason` is stable.'),
  'shadow-rejected': entry(400, 'AWS IoT does not take this shadow', 'Correct what `detail` names.'),
  'device-not-authorized': entry(401, 'Serial number and its registration token or proof do not match a device', 'Check both; ask the operator for a new token, or sign the proof with the key of the present certificate.'),
  'proof-not-current': entry(401, 'The proof is not of this time', 'Set the clock by the answer\'s `Date`, and make a new proof.'),
  'proof-rejected': entry(401, 'The proof is not in the right form, or not for this request', 'Make a new proof that follows `detail`; `reason` is stable.'),
  unauthenticated: entry(401, 'The API key or token is missing, unknown or expired', 'Send `Authorization: Bearer` with a valid API key or token.'),
  'event-not-authentic': entry(401, 'The event does not carry the secret', 'Let the AWS IoT rule send the header `X-Jitr-Secret` with the value of `JITR_SECRET`.'),
  'client-certificate-required': entry(403, 'A TLS client certificate is required', 'Connect with the present certificate of the device and its key, to where client certificates are asked for.'),
  'device-disabled': entry(403, 'The device is disabled', 'Ask the operator to enable it.'),
  'device-revoked': entry(403, 'The device is revoked', 'Ask the operator to reset it, which gives it a new token.'),
  'certificate-expired': entry(403, 'The certificate has expired', 'Ask the operator to reset the device, which gives it a new token.'),
  'generated-keys-not-allowed': entry(403, 'The product of the device takes no generated keys', 'Make a key on the device and send a CSR.'),
  'product-mismatch': entry(403, 'The device belongs to another product', 'Use the EST label of the product of the device, or none.'),
  'thing-name-too-long': entry(403, 'The serial number is too long for the thing names of the product', 'The operator must register the device for another product.'),
  'authority-not-active': entry(403, 'The authority that signed the certificate is not ACTIVE', 'The operator must activate it, or the device needs a certificate of another one.'),
  'authority-not-for-product': entry(403, 'The authority may not sign for the product of the device', 'The operator must add the product to the authority, or use another one.'),
  'other-account': entry(403, 'The event or destination is of another account or Region', 'Set `AWS_ACCOUNT_ID` and `AWS_REGION`, or remove the rule of the other account.'),
  'device-decommissioned': entry(403, 'The device is decommissioned', 'Give up: this record is never vended again.'),
  forbidden: entry(403, 'The role of the caller does not allow this', 'Use an API key or a token with one of the roles that the route allows.'),
  'device-not-found': entry(404, 'There is no device with this serial number', 'Check the serial number.'),
  'certificate-not-found': entry(404, 'No device has this certificate', 'Check the id; a certificate that was replaced is not found.'),
  'authority-not-found': entry(404, 'There is no authority with this id', 'Check the id: SHA-256 of the DER of the CA certificate, in hex.'),
  'drift-not-found': entry(404, 'AWS IoT and the registry do not differ about this device', 'Look at the device; the difference may have ended.'),
  'shadow-not-found': entry(404, 'The device has no such shadow', 'Check `name`; a shadow is there once the device or an operator has written to it.'),
  'not-found': entry(404, 'There is nothing at this address', 'Check method and path.'),
  'method-not-allowed': entry(405, 'The method is not allowed here', 'Use a method named in the `Allow` header.'),
  'request-timeout': entry(408, 'The request did not arrive in time', 'Send it again, faster.'),
  'device-exists': entry(409, 'There is a device with this serial number already', 'Look at the device; an operator\'s reset gives it a new token.'),
  'already-vended': entry(409, 'The device already has a certificate for another key', 'Renew with the current key, or ask the operator to reset the device.'),
  'key-in-use': entry(409, 'The key is, or was, another device\'s', 'Make a new key on the device. Where devices share keys on purpose, the operator sets `keyReuse` of the product to `warn`.'),
  'key-compromised': entry(409, 'The key is compromised', 'Make a new key: this one is never certified again.'),
  'certificate-in-use': entry(409, 'The certificate is another device\'s', 'Make a certificate for each device.'),
  'certificate-revoked': entry(409, 'The certificate is revoked', 'Make a new certificate: this one never comes back.'),
  'authority-exists': entry(409, 'The CA is registered already, in another way', 'Look at the authority, and change what `detail` names.'),
  'authority-active': entry(409, 'The authority is ACTIVE', 'Deactivate it, then send the same request again.'),
  'authority-in-use': entry(409, 'Certificates of the authority are registered', 'End them first, or send `force=true`: they go on working without their authority.'),
  'authority-limit-exceeded': entry(409, 'AWS IoT has its limit of CAs with this subject', 'Delete one that is not needed any more, or make a CA with another subject.'),
  'key-not-recoverable': entry(409, 'The private key was in the first answer and is stored nowhere', 'Ask the operator to reset the device, or use a CSR.'),
  'vend-in-progress': entry(409, 'Another request is vending for this device', 'Send the same request again after `Retry-After` seconds.'),
  'renewal-gone': entry(409, 'The new certificate cannot be confirmed any more', 'Go on with the current certificate, and renew with a new request.'),
  'duplicate-in-batch': entry(409, 'The serial number is in an earlier line of the batch', 'Look at that line\'s result; send each device once.'),
  'shadow-conflict': entry(409, 'The shadow is at another version', 'Get it: what you sent may be in it already; else send it with its `version`.'),
  'state-conflict': entry(409, 'The state of the device does not allow this', 'Look at the device; a decommissioned one stays so.'),
  'precondition-failed': entry(412, 'The device or authority has changed since it was looked at', 'Look at it again, then send its new `ETag` as `If-Match`.'),
  'body-too-large': entry(413, 'The body is too large', 'Send less.'),
  'shadow-too-large': entry(413, 'The shadow would be larger than the 8 KB that AWS IoT keeps', 'Send less, or take members out of it with null.'),
  'uri-too-long': entry(414, 'The URL is too long', 'Shorten it.'),
  'unsupported-media-type': entry(415, 'The body has the wrong media type', 'Send `Content-Type: application/json`, or `application/x-ndjson` where the route takes lines.'),
  'expectation-failed': entry(417, 'The service does not meet the expectation', 'Leave `Expect` out, or send `Expect: 100-continue`.'),
  'rate-limited': entry(429, 'Too many requests', 'Wait `Retry-After` seconds.'),
  'headers-too-large': entry(431, 'The request headers are too large', 'Send less.'),
  'internal-error': entry(500, 'The service failed', 'Send the same request again; report `requestId` if it stays.'),
  'device-unreadable': entry(500, 'The record of the device cannot be read', 'The operator must mend the attribute that `detail` names in the table (`cvm operator list --quarantined`); then send the same request again.'),
  'aws-iot-refused': entry(502, 'AWS IoT refused the call', 'The operator must repair the set-up (policy, permissions, limits); report `requestId`.'),
  'aws-iot-throttled': entry(503, 'AWS IoT is at its quota', 'Send the same request again after `Retry-After` seconds.'),
  'aws-iot-unavailable': entry(503, 'AWS IoT did not answer', 'Send the same request again after `Retry-After` seconds.'),
  'registry-unavailable': entry(503, 'The device registry did not answer', 'Send the same request again after `Retry-After` seconds.'),
  'crl-unavailable': entry(503, 'Nobody can tell whether the certificate is revoked', 'The operator must mend the CRL that `detail` names; send the same request again after `Retry-After` seconds.'),
  'identity-provider-unavailable': entry(503, 'The identity provider did not answer', 'Send the same request again after `Retry-After` seconds, or use an API key.'),
  'product-not-configured': entry(503, 'The product of the device is not configured', 'The operator must add it to `PRODUCTS_FILE` and restart; then send the same request again.'),
  overloaded: entry(503, 'The service is at its capacity', 'Send the same request again after `Retry-After` seconds.'),
  'deadline-exceeded': entry(503, 'The work was not done in time', 'Send the same request again after `Retry-After` seconds.')
} as const

interface ErrorEntry { readonly status: number, readonly title: string, readonly remedy: string }

/** The stable name of a failure, as callers see it in `code`. */
export type ErrorCode = keyof typeof TABLE

/** The error table, for the README test and the API description. */
export const ERRORS: Readonly<Record<ErrorCode, ErrorEntry>> = TABLE

interface ErrorDetails {
  /** What exactly was wrong, for a human; never a secret. */
  detail?: string
  /** A stable kebab-case name of the rule that was broken. */
  reason?: string
  /** When a retry makes sense, in milliseconds; sent as whole seconds, rounded up. */
  retryAfterMs?: number
  /** What led here; logged by name, never sent. */
  cause?: unknown
}

/** A failure from the table. Thrown anywhere, rendered only at the edge. */
export class CvmError extends Error {
  readonly code: ErrorCode
  readonly reason: string | undefined
  readonly retryAfterMs: number | undefined

  constructor (code: ErrorCode, details: ErrorDetails = {}) {
    super(details.detail ?? TABLE[code].title, { cause: details.cause })
    this.name = 'CvmError'
    this.code = code
    this.reason = details.reason
    this.retryAfterMs = details.retryAfterMs
  }
}

function entry (status: number, title: string, remedy: string): ErrorEntry {
  return { status, title, remedy }
}
