import type { Account } from './account.ts'
import { attributePayload } from './attributes.ts'
import { invalidRequest, notFound } from './aws-error.ts'
import { DESCRIPTION, flag, NAME, optionalObject, optionalText, optionalWhole, PRINCIPAL, text } from './constraints.ts'
import { epochSeconds, type Call, type Operations } from './operation.ts'
import { tokenPage } from './page.ts'
import { tagList } from './tag-operations.ts'
import type { ThingGroup, ThingGroupProperties } from './thing-groups.ts'

/** Static thing groups and who is in them: AWS IoT API model 1.4 of aws-facts. */
export function thingGroupOperations ({ arnPrefix, policies, tags, things, thingGroups }: Account): Operations {
  const nameIn = ({ params }: Call): string => text(params['thingGroupName'], 'thingGroupName', NAME)

  /** Group and thing of a body that names each by name, by ARN or by both. */
  const membersIn = ({ body }: Call): { group: string, thing: string } => {
    const group = oneOf(body, 'thingGroup', `${arnPrefix}:thinggroup/`)
    const thing = oneOf(body, 'thing', `${arnPrefix}:thing/`)
    return { group: thingGroups.get(group).name, thing: things.get(thing).name }
  }

  return {
    CreateThingGroup: {
      method: 'POST',
      url: '/thing-groups/:thingGroupName',
      run: call => {
        const name = nameIn(call)
        const parent = optionalText(call.body['parentGroupName'], 'parentGroupName', NAME)
        const tagged = tagList(call.body['tags'], 'tags')
        const { arn, id } = thingGroups.create(name, propertiesIn(call), parent)
        tags.create(arn, tagged)
        return { thingGroupName: name, thingGroupArn: arn, thingGroupId: id }
      }
    },
    DescribeThingGroup: {
      method: 'GET',
      url: '/thing-groups/:thingGroupName',
      run: call => {
        const { name, id, arn, parent, description, attributes, createdAt, version } = thingGroups.get(nameIn(call))
        return {
          thingGroupName: name,
          thingGroupId: id,
          thingGroupArn: arn,
          version,
          thingGroupProperties: {
            thingGroupDescription: description,
            // Terraform reads an empty payload as one that was asked for.
            ...(Object.keys(attributes).length === 0 ? {} : { attributePayload: { attributes } })
          },
          thingGroupMetadata: {
            parentGroupName: parent,
            rootToParentThingGroups: thingGroups.ancestorsOf(name).map(summary),
            creationDate: epochSeconds(createdAt)
          }
        }
      }
    },
    UpdateThingGroup: {
      method: 'PATCH',
      url: '/thing-groups/:thingGroupName',
      run: call => {
        const expected = optionalWhole(call.body['expectedVersion'], 'expectedVersion')
        return { version: thingGroups.update(nameIn(call), propertiesIn(call), expected) }
      }
    },
    DeleteThingGroup: {
      // The model knows no 404 here: a group that is not there is deleted already.
      method: 'DELETE',
      url: '/thing-groups/:thingGroupName',
      run: call => {
        const removed = thingGroups.remove(nameIn(call), optionalWhole(call.query['expectedVersion'], 'expectedVersion'))
        if (removed !== undefined) {
          policies.detachAll(removed.arn)
          tags.remove(removed.arn)
        }
        return {}
      }
    },
    ListThingGroups: {
      method: 'GET',
      url: '/thing-groups',
      run: call => {
        const parent = optionalText(call.query['parentGroup'], 'parentGroup', NAME)
        const prefix = optionalText(call.query['namePrefixFilter'], 'namePrefixFilter', NAME) ?? ''
        const recursive = call.query['recursive'] === undefined || flag(call.query['recursive'], 'recursive')
        if (parent !== undefined) thingGroups.get(parent)
        const below = ({ name, parent: direct }: ThingGroup): boolean => direct === parent ||
          (recursive && (parent === undefined || thingGroups.ancestorsOf(name).some(({ name }) => name === parent)))
        return listed(thingGroups.list().filter(group => group.name.startsWith(prefix) && below(group)), call)
      }
    },
    AddThingToThingGroup: {
      method: 'PUT',
      url: '/thing-groups/addThingToThingGroup',
      run: call => {
        const { group, thing } = membersIn(call)
        thingGroups.addThing(group, thing)
        return {}
      }
    },
    RemoveThingFromThingGroup: {
      method: 'PUT',
      url: '/thing-groups/removeThingFromThingGroup',
      run: call => {
        const { group, thing } = membersIn(call)
        thingGroups.removeThing(group, thing)
        return {}
      }
    },
    ListThingGroupsForThing: {
      method: 'GET',
      url: '/things/:thingName/thing-groups',
      run: call => listed(thingGroups.ofThing(things.get(text(call.params['thingName'], 'thingName', NAME)).name), call)
    },
    ListThingsInThingGroup: {
      method: 'GET',
      url: '/thing-groups/:thingGroupName/things',
      run: call => {
        const { items, next } = tokenPage(thingGroups.thingsIn(nameIn(call), flag(call.query['recursive'], 'recursive')), item => item, call)
        return { things: items, nextToken: next }
      }
    }
  }
}

function listed (sorted: readonly ThingGroup[], call: Call): object {
  const { items, next } = tokenPage(sorted, ({ name }) => name, call)
  return { thingGroups: items.map(summary), nextToken: next }
}

function summary ({ name, arn }: ThingGroup): object {
  return { groupName: name, groupArn: arn }
}

function propertiesIn ({ body }: Call): ThingGroupProperties {
  const member = 'thingGroupProperties'
  const properties = optionalObject(body[member], member) ?? {}
  return {
    description: optionalText(properties['thingGroupDescription'], `${member}.thingGroupDescription`, DESCRIPTION),
    attributes: attributePayload(properties['attributePayload'], `${member}.attributePayload`)
  }
}

/** The name in `<kind>Name` or at the end of `<kind>Arn`; one of them must be there, and both must mean the same. */
function oneOf (body: Call['body'], kind: 'thing' | 'thingGroup', arnPrefix: string): string {
  const name = optionalText(body[`${kind}Name`], `${kind}Name`, NAME)
  const arn = optionalText(body[`${kind}Arn`], `${kind}Arn`, PRINCIPAL)
  if (arn === undefined) return name ?? missing(kind)
  if (!arn.startsWith(arnPrefix)) throw notFound(`${arn} not found`)
  const named = arn.slice(arnPrefix.length)
  if (name !== undefined && name !== named) throw invalidRequest(`${kind}Name and ${kind}Arn do not name the same`)
  return named
}

function missing (kind: string): never {
  throw invalidRequest(`Either ${kind}Name or ${kind}Arn must be given`)
}
