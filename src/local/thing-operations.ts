import { notFound, invalidRequest } from './aws-error.ts'
import type { Account } from './account.ts'
import { applied, attributePayload } from './attributes.ts'
import { ATTRIBUTE_NAME, ATTRIBUTE_VALUE, flag, NAME, optionalFlag, optionalText, optionalWhole, text } from './constraints.ts'
import type { Call, Operations } from './operation.ts'
import { tokenPage } from './page.ts'
import type { Thing } from './things.ts'

/** The registry's things: AWS IoT API model 1.4 of aws-facts. */
export function thingOperations ({ things, thingGroups }: Account): Operations {
  const nameIn = ({ params }: Call): string => text(params['thingName'], 'thingName', NAME)

  return {
    CreateThing: {
      method: 'POST',
      url: '/things/:thingName',
      run: call => {
        const name = nameIn(call)
        const payload = attributePayload(call.body['attributePayload'], 'attributePayload')
        refuseBillingGroup(call)
        const typeName = optionalText(call.body['thingTypeName'], 'thingTypeName', NAME)
        const { arn, id } = things.create(name, payload === undefined ? {} : applied({}, payload), typeName)
        return { thingName: name, thingArn: arn, thingId: id }
      }
    },
    DescribeThing: {
      method: 'GET',
      url: '/things/:thingName',
      run: call => {
        const { name, id, arn, attributes, typeName, version } = things.get(nameIn(call))
        return { defaultClientId: name, thingName: name, thingId: id, thingArn: arn, thingTypeName: typeName, attributes, version }
      }
    },
    UpdateThing: {
      method: 'PATCH',
      url: '/things/:thingName',
      run: call => {
        const name = nameIn(call)
        const typeName = optionalText(call.body['thingTypeName'], 'thingTypeName', NAME)
        const removed = optionalFlag(call.body['removeThingType'], 'removeThingType') ?? false
        if (removed && typeName !== undefined) throw invalidRequest('thingTypeName cannot be given with removeThingType')
        things.update(name, {
          attributes: attributePayload(call.body['attributePayload'], 'attributePayload'),
          typeName: removed ? null : typeName,
          expectedVersion: optionalWhole(call.body['expectedVersion'], 'expectedVersion')
        })
        return {}
      }
    },
    DeleteThing: {
      // A thing that is not there is deleted already (API model).
      method: 'DELETE',
      url: '/things/:thingName',
      run: call => {
        const name = nameIn(call)
        if (things.remove(name, optionalWhole(call.query['expectedVersion'], 'expectedVersion'))) thingGroups.forget(name)
        return {}
      }
    },
    ListThings: {
      method: 'GET',
      url: '/things',
      run: call => {
        const { items, next } = tokenPage(things.list().filter(wanted(call)), ({ name }) => name, call)
        return {
          things: items.map(({ name, typeName, arn, attributes, version }) => ({
            thingName: name, thingTypeName: typeName, thingArn: arn, attributes, version
          })),
          nextToken: next
        }
      }
    }
  }
}

/** The filters of ListThings; all that are given must hold. */
function wanted ({ query }: Call): (thing: Thing) => boolean {
  const attribute = optionalText(query['attributeName'], 'attributeName', ATTRIBUTE_NAME)
  const value = optionalText(query['attributeValue'], 'attributeValue', ATTRIBUTE_VALUE)
  const type = optionalText(query['thingTypeName'], 'thingTypeName', NAME)
  const prefix = flag(query['usePrefixAttributeValue'], 'usePrefixAttributeValue')
  const fits = (actual: string): boolean => value === undefined || (prefix ? actual.startsWith(value) : actual === value)
  return ({ attributes, typeName }) => (type === undefined || typeName === type) && ((attribute === undefined && value === undefined) ||
    Object.entries(attributes).some(([name, actual]) => (attribute === undefined || name === attribute) && fits(actual)))
}

// There are no billing groups here, so every name of one is the name of one that is not there.
function refuseBillingGroup ({ body }: Call): void {
  const name = optionalText(body['billingGroupName'], 'billingGroupName', NAME)
  if (name !== undefined) throw notFound(`Billing group ${name} not found`)
}
