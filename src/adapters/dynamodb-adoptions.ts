import type { DynamoDBDocumentClient } from '@aws-sdk/lib-dynamodb'
import type { AdoptionClaim, Adoptions } from '../vending/adoptions.ts'
import { type Device, type HistoryEntry, withHistory } from '../vending/device.ts'
import type { WriteResult } from '../vending/device-registry.ts'
import {
  BEGIN_SUSPICION, IS_FROM_OLD_SERVICE, OLD_SERVICE, WAS_NOT_VENDED_THERE, claimValues, newClaim, productIsNot, productValues, suspectValues
} from './claims.ts'
import { CLAIM_HAS_EXPIRED, DeviceRows, type OnQuarantined, IS_ISSUING, IS_REGISTERED, all } from './device-rows.ts'

const IS_NOT_BEING_ENDED = 'NOT contains(retiring, :certificateId)'

/** The registry's writes for adoption, in its table. */
export class DynamoDbAdoptions implements Adoptions {
  readonly #rows: DeviceRows

  constructor (client: DynamoDBDocumentClient, tableName: string, onQuarantined?: OnQuarantined) {
    this.#rows = new DeviceRows(client, tableName, onQuarantined)
  }

  claim (request: AdoptionClaim): Promise<WriteResult> {
    const { publicKeyFingerprint: fingerprint, refusingProducts, ...claim } = request
    const isAsked = claim.way === 'registered'
    const claimable = [[IS_REGISTERED], [IS_FROM_OLD_SERVICE, 'attribute_exists(serialNumber)', WAS_NOT_VENDED_THERE], [IS_ISSUING, CLAIM_HAS_EXPIRED]]
    return this.#rows.change({
      serialNumber: claim.serialNumber,
      condition: claimable.map(parts => all(...parts, IS_NOT_BEING_ENDED, ...productIsNot(refusingProducts))).join(' OR '),
      update: `SET ${newClaim(fingerprint)}${isAsked ? `, ${BEGIN_SUSPICION}` : ''}, #history = list_append(if_not_exists(#history, :none), :entry)` +
        (isAsked ? ' ADD suspects :suspects' : ''),
      values: {
        ...claimValues(claim, fingerprint),
        ...isAsked && suspectValues(fingerprint),
        ...OLD_SERVICE,
        ':certificateId': claim.certificateId,
        ':now': claim.now,
        ':registered': 'REGISTERED',
        ':none': [],
        ':entry': [{ at: claim.now, event: 'claimed', requestId: claim.requestId }],
        ...productValues(refusingProducts)
      }
    })
  }

  tell (device: Device, entry: HistoryEntry): Promise<WriteResult> {
    const { serialNumber, revision } = device
    return this.#rows.change({
      serialNumber,
      condition: revision === 0 ? all('attribute_exists(serialNumber)', 'attribute_not_exists(revision)') : 'revision = :seen',
      update: 'SET #history = :history',
      values: { ':history': withHistory(device, entry), ...(revision > 0 && { ':seen': revision }) }
    })
  }
}
