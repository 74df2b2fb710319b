import { notFound } from './aws-error.ts'
import type { Account } from './account.ts'
import {
  ATTRIBUTE_NAME, ATTRIBUTE_VALUE, MARKER, NAME, optionalObject, optionalText, pageSize, PRINCIPAL, text, THING_PRINCIPAL_TYPE
} from './constraints.ts'
import type { Call, Operations } from './operation.ts'
import { page } from './page.ts'
import type { AttachmentType, Thing } from './things.ts'

/** Things and their principals: AWS IoT API model 1.4 of aws-facts. */
export function thingOperations ({ certificates, things }: Account): Operations {
  const nameIn = ({ params }: Call): string => text(params['thingName'], 'thingName', NAME)
  const thingIn = (call: Call): Thing => things.get(nameIn(call))
  const principalIn = ({ principal }: Call): string => certificates.getByArn(text(principal, 'principal', PRINCIPAL)).arn

  return {
    CreateThing: {
      method: 'POST',
      url: '/things/:thingName',
      run: call => {
        const name = nameIn(call)
        const attributes = attributesIn(call)
        refuseUnknown(call, 'thingTypeName', 'Thing type')
        refuseUnknown(call, 'billingGroupName', 'Billing group')
        const { arn, id } = things.create(name, attributes)
        return { thingName: name, thingArn: arn, thingId: id }
      }
    },
    DescribeThing: {
      method: 'GET',
      url: '/things/:thingName',
      run: call => {
        const { name, id, arn, attributes, version } = thingIn(call)
        return { defaultClientId: name, thingName: name, thingId: id, thingArn: arn, attributes, version }
      }
    },
    AttachThingPrincipal: {
      method: 'PUT',
      url: '/things/:thingName/principals',
      run: call => {
        const type = optionalText(call.query['thingPrincipalType'], 'thingPrincipalType', THING_PRINCIPAL_TYPE)
        const { name } = thingIn(call)
        things.attach(name, principalIn(call), type as AttachmentType | undefined)
        return {}
      }
    },
    DetachThingPrincipal: {
      method: 'DELETE',
      url: '/things/:thingName/principals',
      run: call => {
        const { name } = thingIn(call)
        things.detach(name, principalIn(call))
        return {}
      }
    },
    ListThingPrincipals: {
      method: 'GET',
      url: '/things/:thingName/principals',
      run: call => {
        const { name } = thingIn(call)
        const { items, next } = listed(things.principalsOf(name), call)
        return { principals: items, nextToken: next }
      }
    },
    ListPrincipalThings: {
      method: 'GET',
      url: '/principals/things',
      run: call => {
        const { items, next } = listed(things.ofPrincipal(principalIn(call)), call)
        return { things: items, nextToken: next }
      }
    }
  }
}

function listed (sorted: readonly string[], { query }: Call): ReturnType<typeof page<string>> {
  return page(sorted, item => item, pageSize(query['maxResults'], 'maxResults', 250), optionalText(query['nextToken'], 'nextToken', MARKER))
}

function attributesIn ({ body }: Call): Record<string, string> {
  const payload = optionalObject(body['attributePayload'], 'attributePayload') ?? {}
  const attributes = optionalObject(payload['attributes'], 'attributePayload.attributes') ?? {}
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [
    text(name, 'attributePayload.attributes', ATTRIBUTE_NAME),
    text(value, `attributePayload.attributes.${name.slice(0, 128)}`, ATTRIBUTE_VALUE)
  ]))
}

// There are no thing types and billing groups yet, so every name of one is the name of one that is not there.
function refuseUnknown ({ body }: Call, member: string, kind: string): void {
  const name = optionalText(body[member], member, NAME)
  if (name !== undefined) throw notFound(`${kind} ${name} not found`)
}
