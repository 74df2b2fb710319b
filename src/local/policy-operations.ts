import type { Account } from './account.ts'
import { MARKER, optionalText, pageSize, POLICY_DOCUMENT, POLICY_NAME, PRINCIPAL, text } from './constraints.ts'
import { epochSeconds, type Call, type Operations } from './operation.ts'
import { page } from './page.ts'

const VERSION_ID = '1'

/** Policies and their targets: AWS IoT API model 1.5 of aws-facts. */
export function policyOperations ({ certificates, policies }: Account): Operations {
  const nameIn = ({ params }: Call): string => text(params['policyName'], 'policyName', POLICY_NAME)
  const targetIn = (value: unknown): string => certificates.getByArn(text(value, 'target', PRINCIPAL)).arn

  return {
    CreatePolicy: {
      method: 'POST',
      url: '/policies/:policyName',
      run: call => {
        const policy = policies.create(nameIn(call), text(call.body['policyDocument'], 'policyDocument', POLICY_DOCUMENT))
        return { policyName: policy.name, policyArn: policy.arn, policyDocument: policy.text, policyVersionId: VERSION_ID }
      }
    },
    GetPolicy: {
      method: 'GET',
      url: '/policies/:policyName',
      run: call => {
        const { name, arn, text: document, createdAt } = policies.get(nameIn(call))
        return {
          policyName: name,
          policyArn: arn,
          policyDocument: document,
          defaultVersionId: VERSION_ID,
          creationDate: epochSeconds(createdAt),
          lastModifiedDate: epochSeconds(createdAt),
          generationId: VERSION_ID
        }
      }
    },
    AttachPolicy: {
      method: 'PUT',
      url: '/target-policies/:policyName',
      run: call => {
        const { name } = policies.get(nameIn(call))
        policies.attach(name, targetIn(call.body['target']))
        return {}
      }
    },
    DetachPolicy: {
      // The model knows no 404 here, so what is not attached, or not there at all, is detached already.
      method: 'POST',
      url: '/target-policies/:policyName',
      run: call => {
        policies.detach(nameIn(call), text(call.body['target'], 'target', PRINCIPAL))
        return {}
      }
    },
    ListAttachedPolicies: {
      method: 'POST',
      url: '/attached-policies/:target',
      run: ({ params, query }) => {
        const size = pageSize(query['pageSize'], 'pageSize', 250)
        const marker = optionalText(query['marker'], 'marker', MARKER)
        const { items, next } = page(policies.of(targetIn(params['target'])), ({ name }) => name, size, marker)
        return { policies: items.map(({ name, arn }) => ({ policyName: name, policyArn: arn })), nextMarker: next }
      }
    }
  }
}
