import type { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import { type Certificate, type Device, type PendingOperation, isAdopted, renewalLeftover } from '../vending/device.ts'
import type { ClaimRequest, DeviceRegistry, FencedWrite, Fulfilment, NewClaim, NewDevice, WriteResult } from '../vending/device-registry.ts'
import {
  BEGIN_SUSPICION, IS_FROM_OLD_SERVICE, OLD_SERVICE, WAS_NOT_VENDED_THERE, claimValues, newClaim, productIsNot, productValues, suspectValues
} from './claims.ts'
import { UNFINISHED } from './device-row.ts'
import {
  CERTIFICATE_IS_THE_ONE_SEEN, CLAIM_HAS_EXPIRED, CLAIM_IS_OURS, DeviceRows, type OnQuarantined, END_SUSPICION,
  IS_ISSUED, IS_ISSUING, IS_REGISTERED, NO_CERTIFICATE, NO_WISH_IS_PENDING, all, claimAsSeen, claimSeen, renewalAsSeen, renewalSeen, story
} from './device-rows.ts'

const TOKEN_IS_RIGHT = 'tokenHash = :tokenHash'
const TOKEN_IS_FRESH = 'NOT tokenExpiresAt <= :now'
const CLAIM_IS_LIVE = 'claimExpiresAt > :now'

const PLAIN_TOKEN_IS_RIGHT = 'deviceToken = :registrationToken'

const IS_ACTIVE_SINCE_SEEN = '#state = :active AND committedAt = :committedAt'

/** What a row that nobody has renewed is without. */
const NO_RENEWAL = 'renewal, usedProofs, renewedFrom, renewedAt'

/** How far before everything else an operator's wish stands in the index of unfinished rows: thirty years, in their own order. */
const WISH_LEAD_MS = 1e12

const WISH_IS_THE_ONE_SEEN = 'pending.operationId = :operationId'

/** The device registry in one DynamoDB table, by single-item conditional writes alone. */
export class DynamoDbDeviceRegistry implements DeviceRegistry {
  readonly #rows: DeviceRows

  constructor (client: DynamoDBDocumentClient, tableName: string, onQuarantined?: OnQuarantined) {
    this.#rows = new DeviceRows(client, tableName, onQuarantined)
  }

  find (serialNumber: string): Promise<Device | undefined> {
    return this.#rows.find(serialNumber)
  }

  register (device: NewDevice, { now, ...author }: { now: number, requestId: string, actor?: string }): Promise<WriteResult> {
    const { serialNumber, product, tokenHash, tokenExpiresAt } = device
    const token = setOrRemove({ tokenHash, tokenExpiresAt })
    return this.#rows.change({
      serialNumber,
      condition: 'attribute_not_exists(serialNumber)',
      update: `SET #state = :registered, product = :product, #history = :history${token.set}`,
      values: { ':registered': 'REGISTERED', ':product': product, ':history': [{ at: now, event: 'registered', ...author }], ...token.values }
    })
  }

  claim (request: ClaimRequest): Promise<WriteResult> {
    const { publicKeyFingerprint: fingerprint, refusingProducts, ...claim } = request
    const beganForThisKey = `way = :way AND ${fingerprint ? 'publicKeyFingerprint = :fingerprint' : 'attribute_not_exists(publicKeyFingerprint)'}`
    const claimable = [
      [TOKEN_IS_RIGHT, IS_REGISTERED, TOKEN_IS_FRESH],
      [PLAIN_TOKEN_IS_RIGHT, IS_FROM_OLD_SERVICE, WAS_NOT_VENDED_THERE, TOKEN_IS_FRESH],
      [TOKEN_IS_RIGHT, IS_ISSUING, CLAIM_HAS_EXPIRED, TOKEN_IS_FRESH],
      [TOKEN_IS_RIGHT, IS_ISSUING, CLAIM_HAS_EXPIRED, beganForThisKey]
    ]
    return this.#rows.change({
      serialNumber: request.serialNumber,
      condition: claimable.map(parts => all(...parts, ...productIsNot(refusingProducts))).join(' OR '),
      update: `SET ${newClaim(fingerprint)}, ${BEGIN_SUSPICION}, tokenHash = :tokenHash, #history = list_append(if_not_exists(#history, :none), :entry)` +
        ` ADD suspects :suspects REMOVE deviceToken${fingerprint ? '' : ', publicKeyFingerprint'}`,
      values: {
        ...claimValues(claim, fingerprint),
        ...suspectValues(fingerprint),
        ':tokenHash': claim.tokenHash,
        ':registrationToken': claim.registrationToken,
        ':now': claim.now,
        ':registered': 'REGISTERED',
        ...OLD_SERVICE,
        ':none': [],
        ':entry': [{ at: claim.now, event: 'claimed', requestId: claim.requestId }],
        ...productValues(refusingProducts)
      }
    })
  }

  resume (device: Device, { claimId, claimExpiresAt, now, requestId }: NewClaim): Promise<WriteResult> {
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(IS_ISSUED, CLAIM_HAS_EXPIRED, CERTIFICATE_IS_THE_ONE_SEEN),
      update: 'SET claimId = :claimId, claimExpiresAt = :claimExpiresAt, #history = :history',
      values: {
        ':issued': 'ISSUED',
        ':claimId': claimId,
        ':claimExpiresAt': claimExpiresAt,
        ':now': now,
        ':certificateId': device.certificate?.certificateId,
        ':history': story(device, { now, requestId }, 'resumed')
      }
    })
  }

  supersede (device: Device, request: NewClaim & Pick<ClaimRequest, 'way' | 'publicKeyFingerprint'>): Promise<WriteResult> {
    const { publicKeyFingerprint: fingerprint, ...claim } = request
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(IS_ISSUED, CLAIM_HAS_EXPIRED, CERTIFICATE_IS_THE_ONE_SEEN),
      update: `SET ${newClaim(fingerprint)}, ${BEGIN_SUSPICION}, #history = :history ADD retiring :superseded, suspects :suspects` +
        ` REMOVE ${noCertificateBut(fingerprint)}`,
      values: {
        ...claimValues(claim, fingerprint),
        ...suspectValues(fingerprint),
        ':issued': 'ISSUED',
        ':now': claim.now,
        ':certificateId': device.certificate?.certificateId,
        ':superseded': new Set([device.certificate?.certificateId]),
        ':history': story(device, claim, 'superseded')
      }
    })
  }

  revend (device: Device, request: ClaimRequest): Promise<WriteResult> {
    const { publicKeyFingerprint: fingerprint, ...claim } = request
    const { certificateId = '' } = device.certificate ?? {}
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(IS_ACTIVE_SINCE_SEEN, CERTIFICATE_IS_THE_ONE_SEEN, TOKEN_IS_RIGHT, TOKEN_IS_FRESH, NO_WISH_IS_PENDING,
        renewalAsSeen(device)),
      update: `SET ${newClaim(fingerprint)}, ${BEGIN_SUSPICION}, #history = :history ADD retiring :replaced, suspects :suspects` +
        ` REMOVE committedAt, tokenSpentAt, ${NO_RENEWAL}, ${noCertificateBut(fingerprint)}`,
      values: {
        ...claimValues(claim, fingerprint),
        ...suspectValues(fingerprint),
        ':active': 'ACTIVE',
        ':committedAt': device.committedAt ?? 0,
        ':certificateId': certificateId,
        ':tokenHash': claim.tokenHash,
        ':now': claim.now,
        ':replaced': new Set([certificateId, ...renewalLeftover(device)]),
        ...renewalSeen(device),
        ':history': story(device, claim, 'revended', { certificateId })
      }
    })
  }

  record (write: FencedWrite, certificate: Certificate): Promise<WriteResult> {
    const { certificateId, caCertificateId, certificateMode, way } = certificate
    const ca = setOrRemove({ caCertificateId, certificateMode })
    return this.#rows.change({
      serialNumber: write.device.serialNumber,
      condition: all(IS_ISSUING, CLAIM_IS_OURS, CLAIM_IS_LIVE),
      update: 'SET #state = :issued, certificateId = :certificateId, certificateArn = :certificateArn, certificatePem = :certificatePem,' +
        ' thingName = :thingName, publicKeyFingerprint = :fingerprint, issuedAt = :issuedAt, notAfter = :notAfter, #history = :history' +
        ca.set + (isOurs(write) ? ` REMOVE ${END_SUSPICION}` : ''),
      values: {
        ':issuing': 'ISSUING',
        ':issued': 'ISSUED',
        ':claimId': write.claimId,
        ':now': write.now,
        ':certificateId': certificateId,
        ...ca.values,
        ':certificateArn': certificate.certificateArn,
        ':certificatePem': certificate.certificatePem,
        ':thingName': certificate.thingName,
        ':fingerprint': certificate.publicKeyFingerprint,
        ':issuedAt': certificate.issuedAt,
        ':notAfter': certificate.notAfter,
        ':history': story(write.device, write, isAdopted(way) ? 'adopted' : 'issued', { certificateId })
      }
    })
  }

  commit (write: FencedWrite): Promise<WriteResult> {
    // A row with something left to clean up stays in the index, ordered by the claim's end.
    const { retiring, suspicion, recheckAt } = write.device
    const isAtRest = retiring.length === 0 && !suspicion
    const finished = isAtRest && recheckAt === undefined ? ', claimExpiresAt, unfinished' : ''
    const owed = isAtRest && recheckAt !== undefined ? { ':recheckAt': recheckAt } : undefined
    return this.#rows.change({
      serialNumber: write.device.serialNumber,
      condition: all(IS_ISSUED, CLAIM_IS_OURS, NO_WISH_IS_PENDING),
      update: `SET #state = :active, committedAt = :now, tokenSpentAt = :now, #history = :history${owed ? ', claimExpiresAt = :recheckAt' : ''} REMOVE claimId${finished}`,
      values: {
        ':issued': 'ISSUED',
        ':active': 'ACTIVE',
        ':claimId': write.claimId,
        ':now': write.now,
        ...owed,
        ':history': story(write.device, write, 'activated', { certificateId: write.device.certificate?.certificateId ?? '' })
      }
    })
  }

  release (write: FencedWrite, certainlyNothing: boolean): Promise<WriteResult> {
    return this.#rows.change({
      serialNumber: write.device.serialNumber,
      condition: all(CLAIM_IS_OURS, '#state IN (:issuing, :issued)'),
      update: 'SET claimExpiresAt = :now, #history = list_append(#history, :entry)' +
        (certainlyNothing && isOurs(write) ? ` REMOVE ${END_SUSPICION}` : ''),
      values: {
        ':issuing': 'ISSUING',
        ':issued': 'ISSUED',
        ':claimId': write.claimId,
        ':now': write.now,
        ':entry': [{ at: write.now, event: 'released', requestId: write.requestId }]
      }
    })
  }

  async intend (device: Device, pending: PendingOperation, moment: { expiresAt: number, revision?: number }): Promise<WriteResult> {
    const { expiresAt, revision } = moment
    const isAtRevision = revision === undefined ? [] : [revision === 0 ? 'attribute_not_exists(revision)' : 'revision = :seen']
    // A wish comes before what crashes left. The end of a claim says until when the device is held, so that it must stay.
    const { claim, renewal } = device
    const isFirst = !claim && !renewal
    const end = isFirst ? ':first' : renewal ? ':expiresAt' : 'if_not_exists(claimExpiresAt, :expiresAt)'
    const result = await this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all('attribute_exists(serialNumber)', renewalAsSeen(device), ...isFirst ? ['attribute_not_exists(claimId)'] : [], ...isAtRevision),
      update: `SET pending = :pending, unfinished = :unfinished, claimExpiresAt = ${end}`,
      values: {
        ':pending': { ...pending, until: expiresAt },
        ':unfinished': UNFINISHED,
        ...(isFirst ? { ':first': expiresAt - WISH_LEAD_MS } : { ':expiresAt': expiresAt }),
        ...renewalSeen(device),
        ...(revision && { ':seen': revision })
      }
    })
    const isWritten = result.applied || result.device?.pending?.operationId === pending.operationId
    return isWritten || !result.device || revision !== undefined ? result : this.intend(result.device, pending, moment)
  }

  fulfil (device: Device, change: Fulfilment, author: { now: number, requestId: string }): Promise<WriteResult> {
    const { certificate, pending } = device
    const { certificateId = '' } = certificate ?? {}
    const retired = certificate?.certificateId ?? device.legacyCertificateId
    const { tokenHash, tokenExpiresAt, stateBefore, recheckAt } = change
    const told = { actor: pending?.actor ?? '', reason: pending?.reason ?? '', ...(certificate && { certificateId }) }
    const history = change.event ? story(device, author, change.event, told) : device.history
    const token = tokenHash ? setOrRemove({ tokenHash, tokenExpiresAt, tokenSpentAt: undefined, deviceToken: undefined }) : setOrRemove({})
    const retires = [...change.retiresCertificate && retired !== undefined ? [retired] : [], ...renewalLeftover(device)]
    const before = setOrRemove({ stateBefore, recheckAt })
    return this.#rows.change({
      serialNumber: device.serialNumber,
      condition: all(
        WISH_IS_THE_ONE_SEEN, device.isLegacy ? 'attribute_not_exists(#state)' : '#state = :seen', claimAsSeen(device),
        renewalAsSeen(device), certificate ? CERTIFICATE_IS_THE_ONE_SEEN : 'attribute_not_exists(certificateId)'
      ),
      update: `SET #state = :to, #history = :history${token.set}${before.set} REMOVE pending, claimId, renewal${token.remove}${before.remove}` +
        (change.retiresCertificate ? `, ${NO_CERTIFICATE}, way, committedAt, certinfo, applyState, usedProofs, renewedFrom, renewedAt` : '') +
        (retires.length > 0 ? ' ADD retiring :retiring' : ''),
      values: {
        ':operationId': pending?.operationId,
        ...(device.isLegacy ? {} : { ':seen': device.state }),
        ...claimSeen(device),
        ...(certificate && { ':certificateId': certificateId }),
        ...renewalSeen(device),
        ...(retires.length > 0 && { ':retiring': new Set(retires) }),
        ':to': change.to,
        ':history': history,
        ...token.values,
        ...before.values
      }
    })
  }
}

/** Sets what is given, and takes the rest away. */
function setOrRemove (attributes: Record<string, unknown>): { set: string, remove: string, values: Record<string, unknown> } {
  const [given, missing] = [true, false].map(is => Object.keys(attributes).filter(name => (attributes[name] !== undefined) === is))
  return {
    set: given?.map(name => `, ${name} = :${name}`).join('') ?? '',
    remove: missing?.map(name => `, ${name}`).join('') ?? '',
    values: Object.fromEntries(given?.map(name => [`:${name}`, attributes[name]]) ?? [])
  }
}

/** What goes with a certificate, but for the attribute that the next one's key is in already. */
function noCertificateBut (fingerprint: string | undefined): string {
  return fingerprint ? NO_CERTIFICATE.replace('publicKeyFingerprint, ', '') : NO_CERTIFICATE
}

/** Whether the suspicion began with this very claim, so that this claim knows how it ends. */
function isOurs ({ device, claimId }: FencedWrite): boolean {
  return device.suspicion?.claimId === claimId
}
