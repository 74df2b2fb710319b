import type { Account } from './account.ts'
import { flag, POLICY_DOCUMENT, POLICY_NAME, POLICY_VERSION_ID, text } from './constraints.ts'
import { epochSeconds, type Call, type Operations } from './operation.ts'
import { datedPage } from './page.ts'
import type { Policy, PolicyVersion } from './policies.ts'
import { tagList } from './tag-operations.ts'

/** Policies and their versions: AWS IoT API model 1.5 of aws-facts. */
export function policyOperations ({ policies, tags }: Account): Operations {
  const nameIn = ({ params }: Call): string => text(params['policyName'], 'policyName', POLICY_NAME)
  const policyIn = (call: Call): Policy => policies.get(nameIn(call))
  const documentIn = ({ body }: Call): string => text(body['policyDocument'], 'policyDocument', POLICY_DOCUMENT)
  const versionIn = (call: Call, policy: Policy): PolicyVersion =>
    policies.versionOf(policy, text(call.params['policyVersionId'], 'policyVersionId', POLICY_VERSION_ID))

  return {
    CreatePolicy: {
      method: 'POST',
      url: '/policies/:policyName',
      run: call => {
        const tagged = tagList(call.body['tags'], 'tags')
        const policy = policies.create(nameIn(call), documentIn(call))
        tags.create(policy.arn, tagged)
        return { policyName: policy.name, ...shown(policy, policy.defaultVersion) }
      }
    },
    GetPolicy: {
      method: 'GET',
      url: '/policies/:policyName',
      run: call => {
        const { name, arn, defaultVersion, createdAt, changedAt } = policyIn(call)
        return {
          policyName: name,
          policyArn: arn,
          policyDocument: defaultVersion.text,
          defaultVersionId: defaultVersion.id,
          creationDate: epochSeconds(createdAt),
          lastModifiedDate: epochSeconds(changedAt),
          generationId: defaultVersion.id
        }
      }
    },
    ListPolicies: {
      method: 'GET',
      url: '/policies',
      run: call => {
        const { items, next } = datedPage(policies.list(), call)
        return { policies: items.map(({ name, arn }) => ({ policyName: name, policyArn: arn })), nextMarker: next }
      }
    },
    DeletePolicy: {
      method: 'DELETE',
      url: '/policies/:policyName',
      run: call => {
        const policy = policyIn(call)
        policies.remove(policy)
        tags.remove(policy.arn)
        return {}
      }
    },
    CreatePolicyVersion: {
      method: 'POST',
      url: '/policies/:policyName/version',
      run: call => {
        const setAsDefault = flag(call.query['setAsDefault'], 'setAsDefault')
        const document = documentIn(call)
        const policy = policyIn(call)
        return { ...shown(policy, policies.addVersion(policy, document, setAsDefault)), isDefaultVersion: setAsDefault }
      }
    },
    GetPolicyVersion: {
      method: 'GET',
      url: '/policies/:policyName/version/:policyVersionId',
      run: call => {
        const policy = policyIn(call)
        const version = versionIn(call, policy)
        return {
          policyName: policy.name,
          ...shown(policy, version),
          isDefaultVersion: version.id === policy.defaultVersion.id,
          creationDate: epochSeconds(version.createdAt),
          lastModifiedDate: epochSeconds(version.createdAt),
          generationId: version.id
        }
      }
    },
    ListPolicyVersions: {
      method: 'GET',
      url: '/policies/:policyName/version',
      run: call => {
        const { versions, defaultVersion } = policyIn(call)
        return {
          policyVersions: [...versions.values()].reverse().map(({ id, createdAt }) => ({
            versionId: id, isDefaultVersion: id === defaultVersion.id, createDate: epochSeconds(createdAt)
          }))
        }
      }
    },
    SetDefaultPolicyVersion: {
      method: 'PATCH',
      url: '/policies/:policyName/version/:policyVersionId',
      run: call => {
        const policy = policyIn(call)
        policies.setDefault(policy, versionIn(call, policy))
        return {}
      }
    },
    DeletePolicyVersion: {
      method: 'DELETE',
      url: '/policies/:policyName/version/:policyVersionId',
      run: call => {
        const policy = policyIn(call)
        policies.removeVersion(policy, versionIn(call, policy))
        return {}
      }
    }
  }
}

function shown ({ arn }: Policy, { id, text }: PolicyVersion): object {
  return { policyArn: arn, policyDocument: text, policyVersionId: id }
}
