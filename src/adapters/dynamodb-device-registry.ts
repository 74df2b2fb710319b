import { ConditionalCheckFailedException } from '@aws-sdk/client-dynamodb'
import { type DynamoDBDocumentClient, GetCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb'
import { unmarshall } from '@aws-sdk/util-dynamodb'
import { CvmError } from '../errors.ts'
import { type Certificate, type Device, type HistoryEntry, withHistory } from '../vending/device.ts'
import type { ClaimRequest, DeviceRegistry, FencedWrite, NewClaim, WriteResult } from '../vending/device-registry.ts'
import { type DeviceRow, UNFINISHED, deviceOf } from './device-row.ts'

/**
 * The conditions, each part a sentence about the row. `NOT x <= y` is also true where there is no `x`. Joined without brackets
 * (AND binds before OR), which dynalite's parser takes exponentially long for.
 */
const TOKEN_IS_RIGHT = 'tokenHash = :tokenHash'
const TOKEN_IS_FRESH = 'NOT tokenExpiresAt <= :now'
const IS_REGISTERED = '#state = :registered'
const IS_ISSUING = '#state = :issuing'
const IS_ISSUED = '#state = :issued'
const CLAIM_HAS_EXPIRED = 'claimExpiresAt <= :now'
const CLAIM_IS_OURS = 'claimId = :claimId'
const CERTIFICATE_IS_THE_ONE_SEEN = 'certificateId = :certificateId'

/** Rows that an operator put for the old services: no state, a plain token, and not vended by them. */
const IS_FROM_OLD_SERVICE = 'attribute_not_exists(#state)'
const PLAIN_TOKEN_IS_RIGHT = 'deviceToken = :registrationToken'
const WAS_NOT_VENDED_THERE = 'NOT certinfo > :empty AND NOT applyState IN (:vended, :vendedText)'

interface Change { serialNumber: string, condition: string, update: string, values: Record<string, unknown> }

/** The device registry in one DynamoDB table, by single-item conditional writes alone. */
export class DynamoDbDeviceRegistry implements DeviceRegistry {
  readonly #client: DynamoDBDocumentClient
  readonly #tableName: string

  constructor (client: DynamoDBDocumentClient, tableName: string) {
    this.#client = client
    this.#tableName = tableName
  }

  async find (serialNumber: string): Promise<Device | undefined> {
    try {
      const { Item } = await this.#client.send(new GetCommand({ TableName: this.#tableName, Key: { serialNumber }, ConsistentRead: true }))
      return Item && deviceOf(Item as DeviceRow)
    } catch (cause) {
      throw unavailable(cause)
    }
  }

  register (device: Pick<Device, 'serialNumber' | 'tokenHash' | 'tokenExpiresAt'>, now: number, requestId: string): Promise<WriteResult> {
    const expiry = device.tokenExpiresAt === undefined ? {} : { ':tokenExpiresAt': device.tokenExpiresAt }
    return this.#change({
      serialNumber: device.serialNumber,
      condition: 'attribute_not_exists(serialNumber)',
      update: `SET #state = :registered, tokenHash = :tokenHash, #history = :history${device.tokenExpiresAt === undefined ? '' : ', tokenExpiresAt = :tokenExpiresAt'}`,
      values: { ':registered': 'REGISTERED', ':tokenHash': device.tokenHash, ':history': [{ at: now, event: 'registered', requestId }], ...expiry }
    })
  }

  claim (request: ClaimRequest): Promise<WriteResult> {
    const { publicKeyFingerprint: fingerprint, ...claim } = request
    const beganForThisKey = `way = :way AND ${fingerprint ? 'publicKeyFingerprint = :fingerprint' : 'attribute_not_exists(publicKeyFingerprint)'}`
    const claimable = [
      [TOKEN_IS_RIGHT, IS_REGISTERED, TOKEN_IS_FRESH],
      [PLAIN_TOKEN_IS_RIGHT, IS_FROM_OLD_SERVICE, WAS_NOT_VENDED_THERE, TOKEN_IS_FRESH],
      [TOKEN_IS_RIGHT, IS_ISSUING, CLAIM_HAS_EXPIRED, TOKEN_IS_FRESH],
      [TOKEN_IS_RIGHT, IS_ISSUING, CLAIM_HAS_EXPIRED, beganForThisKey]
    ]
    return this.#change({
      serialNumber: request.serialNumber,
      condition: claimable.map(sentence => sentence.join(' AND ')).join(' OR '),
      update: `SET ${newClaim(fingerprint)}, tokenHash = :tokenHash, #history = list_append(if_not_exists(#history, :none), :entry)` +
        ` REMOVE deviceToken${fingerprint ? '' : ', publicKeyFingerprint'}`,
      values: {
        ...claimValues(claim, fingerprint),
        ':tokenHash': claim.tokenHash,
        ':registrationToken': claim.registrationToken,
        ':now': claim.now,
        ':registered': 'REGISTERED',
        ':empty': '',
        ':vended': -1,
        ':vendedText': '-1',
        ':none': [],
        ':entry': [{ at: claim.now, event: 'claimed', requestId: claim.requestId }]
      }
    })
  }

  resume (device: Device, { claimId, claimExpiresAt, now, requestId }: NewClaim): Promise<WriteResult> {
    return this.#change({
      serialNumber: device.serialNumber,
      condition: `${IS_ISSUED} AND ${CLAIM_HAS_EXPIRED} AND ${CERTIFICATE_IS_THE_ONE_SEEN}`,
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
    return this.#change({
      serialNumber: device.serialNumber,
      condition: `${IS_ISSUED} AND ${CLAIM_HAS_EXPIRED} AND ${CERTIFICATE_IS_THE_ONE_SEEN}`,
      update: `SET ${newClaim(fingerprint)}, #history = :history ADD retiring :superseded` +
        ` REMOVE certificateId, certificateArn, certificatePem, issuedAt, notAfter${fingerprint ? '' : ', publicKeyFingerprint'}`,
      values: {
        ...claimValues(claim, fingerprint),
        ':issued': 'ISSUED',
        ':now': claim.now,
        ':certificateId': device.certificate?.certificateId,
        ':superseded': new Set([device.certificate?.certificateId]),
        ':history': story(device, claim, 'superseded')
      }
    })
  }

  record (write: FencedWrite, certificate: Certificate): Promise<WriteResult> {
    return this.#change({
      serialNumber: write.device.serialNumber,
      condition: `${IS_ISSUING} AND ${CLAIM_IS_OURS}`,
      update: 'SET #state = :issued, certificateId = :certificateId, certificateArn = :certificateArn, certificatePem = :certificatePem,' +
        ' publicKeyFingerprint = :fingerprint, issuedAt = :issuedAt, notAfter = :notAfter, #history = :history',
      values: {
        ':issuing': 'ISSUING',
        ':issued': 'ISSUED',
        ':claimId': write.claimId,
        ':certificateId': certificate.certificateId,
        ':certificateArn': certificate.certificateArn,
        ':certificatePem': certificate.certificatePem,
        ':fingerprint': certificate.publicKeyFingerprint,
        ':issuedAt': certificate.issuedAt,
        ':notAfter': certificate.notAfter,
        ':history': story(write.device, write, 'issued', certificate.certificateId)
      }
    })
  }

  commit (write: FencedWrite): Promise<WriteResult> {
    // A row that still has certificates to clean up stays in the index, ordered by the claim's end.
    const finished = write.device.retiring.length === 0 ? ', claimExpiresAt, unfinished' : ''
    return this.#change({
      serialNumber: write.device.serialNumber,
      condition: `${IS_ISSUED} AND ${CLAIM_IS_OURS}`,
      update: `SET #state = :active, committedAt = :now, tokenSpentAt = :now, #history = :history REMOVE claimId${finished}`,
      values: {
        ':issued': 'ISSUED',
        ':active': 'ACTIVE',
        ':claimId': write.claimId,
        ':now': write.now,
        ':history': story(write.device, write, 'activated', write.device.certificate?.certificateId)
      }
    })
  }

  release (write: FencedWrite): Promise<WriteResult> {
    return this.#change({
      serialNumber: write.device.serialNumber,
      condition: `${CLAIM_IS_OURS} AND #state IN (:issuing, :issued)`,
      update: 'SET claimExpiresAt = :now, #history = list_append(#history, :entry)',
      values: {
        ':issuing': 'ISSUING',
        ':issued': 'ISSUED',
        ':claimId': write.claimId,
        ':now': write.now,
        ':entry': [{ at: write.now, event: 'released', requestId: write.requestId }]
      }
    })
  }

  async #change ({ serialNumber, condition, update, values }: Change): Promise<WriteResult> {
    const expressions = `${condition} ${update}`
    const names = Object.fromEntries(['state', 'history'].filter(name => expressions.includes(`#${name}`)).map(name => [`#${name}`, name]))
    try {
      const { Attributes } = await this.#client.send(new UpdateCommand({
        TableName: this.#tableName,
        Key: { serialNumber },
        ConditionExpression: condition,
        UpdateExpression: update,
        ...(Object.keys(names).length > 0 && { ExpressionAttributeNames: names }),
        ExpressionAttributeValues: values,
        ReturnValues: 'ALL_NEW',
        ReturnValuesOnConditionCheckFailure: 'ALL_OLD'
      }))
      return { applied: true, device: deviceOf(Attributes as DeviceRow) }
    } catch (cause) {
      if (!(cause instanceof ConditionalCheckFailedException)) throw unavailable(cause)
      // Some stand-ins for DynamoDB send no old item; a read right after decides as well, only later.
      const device = cause.Item ? deviceOf(unmarshall(cause.Item) as DeviceRow) : await this.find(serialNumber)
      return { applied: false, device }
    }
  }
}

function newClaim (fingerprint: string | undefined): string {
  return '#state = :issuing, claimId = :claimId, claimExpiresAt = :claimExpiresAt, way = :way, unfinished = :unfinished' +
    (fingerprint ? ', publicKeyFingerprint = :fingerprint' : '')
}

function claimValues (claim: Pick<ClaimRequest, 'claimId' | 'claimExpiresAt' | 'way'>, fingerprint: string | undefined) {
  return {
    ':issuing': 'ISSUING',
    ':claimId': claim.claimId,
    ':claimExpiresAt': claim.claimExpiresAt,
    ':way': claim.way,
    ':unfinished': UNFINISHED,
    ...(fingerprint && { ':fingerprint': fingerprint })
  }
}

function story (device: Device, { now, requestId }: Pick<FencedWrite, 'now' | 'requestId'>, event: HistoryEntry['event'], certificateId?: string) {
  return withHistory(device, { at: now, event, requestId, ...(certificateId && { certificateId }) })
}

function unavailable (cause: unknown): CvmError {
  return new CvmError('registry-unavailable', { retryAfterMs: 2_000, cause })
}
