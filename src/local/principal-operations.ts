import type { Account } from './account.ts'
import { NAME, optionalText, PRINCIPAL, text, THING_PRINCIPAL_TYPE } from './constraints.ts'
import type { Call, Operations } from './operation.ts'
import { tokenPage } from './page.ts'
import type { AttachmentType } from './things.ts'

/** Which certificates speak for which things: AWS IoT API model 1.4 of aws-facts. */
export function principalOperations ({ certificates, things }: Account): Operations {
  const thingIn = ({ params }: Call): string => things.get(text(params['thingName'], 'thingName', NAME)).name
  const principalIn = ({ principal }: Call): string => certificates.getByArn(text(principal, 'principal', PRINCIPAL)).arn
  const typeIn = ({ query }: Call): AttachmentType | undefined =>
    optionalText(query['thingPrincipalType'], 'thingPrincipalType', THING_PRINCIPAL_TYPE) as AttachmentType | undefined

  return {
    AttachThingPrincipal: {
      method: 'PUT',
      url: '/things/:thingName/principals',
      run: call => {
        const type = typeIn(call)
        things.attach(thingIn(call), principalIn(call), type)
        return {}
      }
    },
    DetachThingPrincipal: {
      method: 'DELETE',
      url: '/things/:thingName/principals',
      run: call => {
        things.detach(thingIn(call), principalIn(call))
        return {}
      }
    },
    ListThingPrincipals: {
      method: 'GET',
      url: '/things/:thingName/principals',
      run: call => {
        const { items, next } = tokenPage(things.principalsOf(thingIn(call)), item => item, call)
        return { principals: items, nextToken: next }
      }
    },
    ListThingPrincipalsV2: {
      method: 'GET',
      url: '/things/:thingName/principals-v2',
      run: call => {
        const type = typeIn(call)
        const name = thingIn(call)
        const all = things.principalsOf(name).map(principal => ({ principal, thingPrincipalType: things.attachmentOf(name, principal) }))
        const { items, next } = tokenPage(all.filter(ofType(type)), one => one.principal, call)
        return { thingPrincipalObjects: items, nextToken: next }
      }
    },
    ListPrincipalThings: {
      method: 'GET',
      url: '/principals/things',
      run: call => {
        const { items, next } = tokenPage(things.ofPrincipal(principalIn(call)), item => item, call)
        return { things: items, nextToken: next }
      }
    },
    ListPrincipalThingsV2: {
      method: 'GET',
      url: '/principals/things-v2',
      run: call => {
        const type = typeIn(call)
        const principal = principalIn(call)
        const names = things.ofPrincipal(principal)
        const all = names.map(thingName => ({ thingName, thingPrincipalType: things.attachmentOf(thingName, principal) }))
        const { items, next } = tokenPage(all.filter(ofType(type)), one => one.thingName, call)
        return { principalThingObjects: items, nextToken: next }
      }
    }
  }
}

function ofType (wanted: AttachmentType | undefined): (one: { thingPrincipalType: AttachmentType | undefined }) => boolean {
  return ({ thingPrincipalType }) => wanted === undefined || wanted === thingPrincipalType
}
