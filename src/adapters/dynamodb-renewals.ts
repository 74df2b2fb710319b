import type { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import { type Certificate, type Device, renewalLeftover, usedProofsLeft } from '../vending/device.ts'
import type { WriteResult } from '../vending/device-registry.ts'
import type { RenewalClaim, Renewals } from '../vending/renewals.ts'
import type { Author } from '../vending/unfinished-devices.ts'
import { UNFINISHED } from './device-row.ts'
import { CERTIFICATE_IS_THE_ONE_SEEN, DeviceRows, type OnQuarantined, END_SUSPICION, NO_WISH_IS_PENDING, all, renewalAsSeen, renewalSeen, story } from './device-rows.ts'

const IS_ACTIVE = '#state = :active'

/** Renewals in the registry's table: a map in the device's row, which the sparse index holds until the renewal is over. */
export class DynamoDbRenewals implements Renewals {
  readonly #rows: DeviceRows

  constructor (client: DynamoDBDocumentClient, tableName: string, onQuarantined?: OnQuarantined) {
    this.#rows = new DeviceRows(client, tableName, onQuarantined)
  }

  begin (device: Device, claim: RenewalClaim): Promise<WriteResult> {
    const { claimId, claimExpiresAt: expiresAt, publicKeyFingerprint, proof, now } = claim
    const replaced = renewalLeftover(device)
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(IS_ACTIVE, CERTIFICATE_IS_THE_ONE_SEEN, renewalAsSeen(device), NO_WISH_IS_PENDING),
      update: 'SET renewal = :renewal, usedProofs = :usedProofs, claimExpiresAt = :expiresAt, unfinished = :unfinished,' +
        ' suspectClaimId = if_not_exists(suspectClaimId, :claimId), suspectSince = if_not_exists(suspectSince, :now), suspectUntil = :expiresAt' +
        (replaced.length > 0 ? ', #history = :history' : '') +
        ` ADD suspects :suspects${replaced.length > 0 ? ', retiring :replaced' : ''}`,
      values: {
        ...certificateSeen(device),
        ...renewalSeen(device),
        ':renewal': { phase: 'issuing', claimId, expiresAt, publicKeyFingerprint, ...(proof && { nonce: proof.nonce }) },
        ':usedProofs': [...device.usedProofs.filter(used => used.expiresAt > now), ...proof ? [proof] : []],
        ':expiresAt': expiresAt,
        ':unfinished': UNFINISHED,
        ':claimId': claimId,
        ':now': now,
        ':suspects': new Set([publicKeyFingerprint]),
        ...(replaced.length > 0 && {
          ':replaced': new Set(replaced), ':history': story(device, claim, 'renewal-abandoned', { certificateId: replaced[0] ?? '' })
        })
      }
    })
  }

  record (device: Device, certificate: Certificate, confirmBefore: number, author: Author): Promise<WriteResult> {
    const { renewal, retiring, suspicion, recheckAt = Infinity } = device
    const isOurs = suspicion?.claimId === renewal?.claimId
    // Nothing is left to do until it is confirmed or its time is over.
    const waits = retiring.length === 0 && isOurs
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(IS_ACTIVE, CERTIFICATE_IS_THE_ONE_SEEN, renewalAsSeen(device), 'renewal.expiresAt > :now', NO_WISH_IS_PENDING),
      update: `SET renewal = :renewal, #history = :history${waits ? ', claimExpiresAt = :confirmBefore' : ''}` +
        (isOurs ? ` REMOVE ${END_SUSPICION}` : ''),
      values: {
        ...certificateSeen(device),
        ...renewalSeen(device),
        ':now': author.now,
        ':renewal': { ...renewal, phase: 'issued', expiresAt: confirmBefore, certificate },
        ...(waits && { ':confirmBefore': Math.min(confirmBefore, recheckAt) }),
        ':history': story(device, author, 'renewal-issued', { certificateId: certificate.certificateId })
      }
    })
  }

  release (device: Device, certainlyNothing: boolean, { now }: Author): Promise<WriteResult> {
    const endsSuspicion = certainlyNothing && device.suspicion?.claimId === device.renewal?.claimId
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: renewalAsSeen(device),
      update: `SET claimExpiresAt = :now, usedProofs = :usedProofs REMOVE renewal${endsSuspicion ? `, ${END_SUSPICION}` : ''}`,
      values: { ...renewalSeen(device), ':now': now, ':usedProofs': usedProofsLeft(device) }
    })
  }

  swap (device: Device, expiresAt: number, author: Author): Promise<WriteResult> {
    const { renewal } = device
    const { certificateId = '' } = renewal?.certificate ?? {}
    const isFirst = renewal?.phase === 'issued'
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(IS_ACTIVE, CERTIFICATE_IS_THE_ONE_SEEN, renewalAsSeen(device), NO_WISH_IS_PENDING),
      update: `SET renewal = :renewal, claimExpiresAt = :expiresAt${isFirst ? ', #history = :history' : ''}`,
      values: {
        ...certificateSeen(device),
        ...renewalSeen(device),
        ':renewal': { ...renewal, phase: 'swapping' },
        ':expiresAt': expiresAt,
        ...(isFirst && { ':history': story(device, author, 'renewal-confirmed', { certificateId }) })
      }
    })
  }

  commit (device: Device, despiteWish: boolean, author: Author): Promise<WriteResult> {
    const { certificate: replaced, renewal } = device
    const certificate = renewal?.certificate
    if (!certificate || !replaced) throw new Error('a swap without its two certificates')
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(CERTIFICATE_IS_THE_ONE_SEEN, renewalAsSeen(device), ...despiteWish ? [] : [NO_WISH_IS_PENDING]),
      update: 'SET certificateId = :newId, certificateArn = :arn, certificatePem = :pem, publicKeyFingerprint = :fingerprint, way = :way,' +
        ' thingName = :thingName, issuedAt = :issuedAt, notAfter = :notAfter, renewedFrom = :certificateId, renewedAt = :now,' +
        ' #history = :history ADD retiring :replaced REMOVE renewal, caCertificateId, certificateMode',
      values: {
        ':certificateId': replaced.certificateId,
        ...renewalSeen(device),
        ':newId': certificate.certificateId,
        ':arn': certificate.certificateArn,
        ':pem': certificate.certificatePem,
        ':fingerprint': certificate.publicKeyFingerprint,
        ':way': certificate.way,
        ':thingName': certificate.thingName,
        ':issuedAt': certificate.issuedAt,
        ':notAfter': certificate.notAfter,
        ':now': author.now,
        ':replaced': new Set([replaced.certificateId]),
        ':history': story(device, author, 'renewed', { certificateId: certificate.certificateId })
      }
    })
  }

  abandon (device: Device, author: Author): Promise<WriteResult> {
    const [certificateId] = renewalLeftover(device)
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(renewalAsSeen(device), 'NOT renewal.phase = :swapping'),
      // Due at once: what was made is to be ended, and an operator may have activated it since.
      update: 'SET #history = :history, usedProofs = :usedProofs, claimExpiresAt = :now REMOVE renewal' + (certificateId ? ' ADD retiring :abandoned' : ''),
      values: {
        ...renewalSeen(device),
        ':swapping': 'swapping',
        ':now': author.now,
        ':usedProofs': usedProofsLeft(device),
        ':history': story(device, author, 'renewal-abandoned', certificateId ? { certificateId } : {}),
        ...(certificateId && { ':abandoned': new Set([certificateId]) })
      }
    })
  }
}

function certificateSeen ({ certificate }: Device): Record<string, unknown> {
  return { ':active': 'ACTIVE', ':certificateId': certificate?.certificateId }
}
