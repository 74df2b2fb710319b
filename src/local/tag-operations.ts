import type { Account } from './account.ts'
import { invalidRequest } from './aws-error.ts'
import { optionalList, optionalObject, optionalText, PRINCIPAL, TAG_KEY, TAG_VALUE, text } from './constraints.ts'
import type { Operations } from './operation.ts'
import type { Tag } from './tags.ts'

/** Tags of whatever has some: CA certificates, policies, thing types and groups; devices' certificates and things have none at AWS. */
export function tagOperations ({ tags }: Account): Operations {
  const arnIn = (value: unknown): string => text(value, 'resourceArn', PRINCIPAL)
  return {
    ListTagsForResource: {
      method: 'GET',
      url: '/tags',
      run: ({ query }) => ({ tags: tags.of(arnIn(query['resourceArn'])) })
    },
    TagResource: {
      method: 'POST',
      url: '/tags',
      run: ({ body }) => {
        const arn = arnIn(body['resourceArn'])
        tags.set(arn, tagList(body['tags'], 'tags') ?? missing('tags'))
        return {}
      }
    },
    UntagResource: {
      method: 'POST',
      url: '/untag',
      run: ({ body }) => {
        const arn = arnIn(body['resourceArn'])
        tags.unset(arn, optionalList(body['tagKeys'], 'tagKeys', (key, member) => text(key, member, TAG_KEY)) ?? missing('tagKeys'))
        return {}
      }
    }
  }
}

/** Reads a `tags` member; undefined when it is absent. */
export function tagList (value: unknown, member: string): Tag[] | undefined {
  return optionalList(value, member, (tag, at) => {
    const members = optionalObject(tag, at) ?? {}
    return { Key: text(members['Key'], `${at}.key`, TAG_KEY), Value: optionalText(members['Value'], `${at}.value`, TAG_VALUE) ?? '' }
  })
}

function missing (member: string): never {
  throw invalidRequest(`1 validation error detected: Value null at '${member}' failed to satisfy constraint: Member must not be null`)
}
