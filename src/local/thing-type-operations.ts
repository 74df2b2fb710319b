import type { Account } from './account.ts'
import { invalidRequest } from './aws-error.ts'
import { ATTRIBUTE_NAME, DESCRIPTION, NAME, optionalFlag, optionalList, optionalObject, optionalText, text } from './constraints.ts'
import { epochSeconds, type Call, type Operations } from './operation.ts'
import { tokenPage } from './page.ts'
import { tagList } from './tag-operations.ts'
import type { ThingType, ThingTypeProperties } from './thing-types.ts'

const MAX_SEARCHABLE = 3

/** Thing types (AWS API model); MQTT 5 settings are not kept, so they are refused rather than forgotten. */
export function thingTypeOperations ({ tags, things, thingTypes }: Account): Operations {
  const nameIn = ({ params }: Call): string => text(params['thingTypeName'], 'thingTypeName', NAME)

  return {
    CreateThingType: {
      method: 'POST',
      url: '/thing-types/:thingTypeName',
      run: call => {
        const name = nameIn(call)
        const tagged = tagList(call.body['tags'], 'tags')
        const { arn, id } = thingTypes.create(name, propertiesIn(call))
        tags.create(arn, tagged)
        return { thingTypeName: name, thingTypeArn: arn, thingTypeId: id }
      }
    },
    DescribeThingType: {
      method: 'GET',
      url: '/thing-types/:thingTypeName',
      run: call => {
        const type = thingTypes.get(nameIn(call))
        return { ...description(type), thingTypeId: type.id }
      }
    },
    ListThingTypes: {
      method: 'GET',
      url: '/thing-types',
      run: call => {
        const name = optionalText(call.query['thingTypeName'], 'thingTypeName', NAME)
        const named = thingTypes.list().filter(type => name === undefined || type.name === name)
        const { items, next } = tokenPage(named, ({ name }) => name, call)
        return { thingTypes: items.map(description), nextToken: next }
      }
    },
    DeprecateThingType: {
      method: 'POST',
      url: '/thing-types/:thingTypeName/deprecate',
      run: call => {
        thingTypes.deprecate(nameIn(call), optionalFlag(call.body['undoDeprecate'], 'undoDeprecate') ?? false)
        return {}
      }
    },
    DeleteThingType: {
      method: 'DELETE',
      url: '/thing-types/:thingTypeName',
      run: call => {
        const name = nameIn(call)
        const { arn } = thingTypes.remove(name, things.list().some(({ typeName }) => typeName === name))
        tags.remove(arn)
        return {}
      }
    }
  }
}

function propertiesIn ({ body }: Call): ThingTypeProperties {
  const member = 'thingTypeProperties'
  const properties = optionalObject(body[member], member) ?? {}
  if (properties['mqtt5Configuration'] !== undefined) throw invalidRequest('The local AWS IoT does not support mqtt5Configuration')
  const thingTypeDescription = optionalText(properties['thingTypeDescription'], `${member}.thingTypeDescription`, DESCRIPTION)
  const searchableAttributes = optionalList(properties['searchableAttributes'], `${member}.searchableAttributes`,
    (name, at) => text(name, at, ATTRIBUTE_NAME))
  if ((searchableAttributes?.length ?? 0) > MAX_SEARCHABLE) throw invalidRequest(`A thing type cannot have more than ${MAX_SEARCHABLE} searchable attributes`)
  return {
    ...(thingTypeDescription === undefined ? {} : { thingTypeDescription }),
    ...(searchableAttributes === undefined ? {} : { searchableAttributes })
  }
}

function description ({ name, arn, properties, createdAt, deprecatedAt }: ThingType): object {
  return {
    thingTypeName: name,
    thingTypeArn: arn,
    thingTypeProperties: properties,
    thingTypeMetadata: {
      deprecated: deprecatedAt !== undefined,
      deprecationDate: deprecatedAt === undefined ? undefined : epochSeconds(deprecatedAt),
      creationDate: epochSeconds(createdAt)
    }
  }
}
