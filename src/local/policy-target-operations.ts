import type { Account } from './account.ts'
import { flag, POLICY_NAME, PRINCIPAL, text } from './constraints.ts'
import type { Call, Operations } from './operation.ts'
import { markerPage, type Page } from './page.ts'
import type { Policy } from './policies.ts'

/** Where policies are attached: AWS IoT API model 1.5 of aws-facts, and the older calls by principal that clients still send. */
export function policyTargetOperations ({ arnPrefix, certificates, policies, thingGroups }: Account): Operations {
  const nameIn = ({ params }: Call): string => text(params['policyName'], 'policyName', POLICY_NAME)
  /** The ARN of a certificate or a thing group that is there. */
  const targetIn = (value: unknown, member = 'target'): string => {
    const arn = text(value, member, PRINCIPAL)
    return arn.startsWith(`${arnPrefix}:thinggroup/`) ? thingGroups.getByArn(arn).arn : certificates.getByArn(arn).arn
  }
  const principalIn = ({ headers }: Call): string => targetIn(headers['x-amzn-iot-principal'], 'principal')
  const targetsOf = (name: string, call: Call): Page<string> => markerPage(policies.targetsOf(name), arn => arn, call)

  /** With `recursive` the policies of the groups above a group, too. */
  const attachedTo = (target: string, recursive: boolean): Policy[] => {
    const group = recursive && target.startsWith(`${arnPrefix}:thinggroup/`) ? thingGroups.getByArn(target) : undefined
    if (group === undefined) return policies.of(target)
    const all = [...thingGroups.ancestorsOf(group.name), group].flatMap(({ arn }) => policies.of(arn))
    return [...new Set(all)].sort((one, other) => one.name < other.name ? -1 : 1)
  }
  const listed = (attached: readonly Policy[], call: Call): object => {
    const { items, next } = markerPage(attached, ({ name }) => name, call)
    return { policies: items.map(({ name, arn }) => ({ policyName: name, policyArn: arn })), nextMarker: next }
  }

  return {
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
      run: call => {
        const recursive = flag(call.query['recursive'], 'recursive')
        return listed(attachedTo(targetIn(call.params['target']), recursive), call)
      }
    },
    ListTargetsForPolicy: {
      method: 'POST',
      url: '/policy-targets/:policyName',
      run: call => {
        const { items, next } = targetsOf(nameIn(call), call)
        return { targets: items, nextMarker: next }
      }
    },
    AttachPrincipalPolicy: {
      method: 'PUT',
      url: '/principal-policies/:policyName',
      run: call => {
        const { name } = policies.get(nameIn(call))
        policies.attach(name, principalIn(call))
        return {}
      }
    },
    DetachPrincipalPolicy: {
      method: 'DELETE',
      url: '/principal-policies/:policyName',
      run: call => {
        const { name } = policies.get(nameIn(call))
        policies.detach(name, principalIn(call))
        return {}
      }
    },
    ListPrincipalPolicies: {
      method: 'GET',
      url: '/principal-policies',
      run: call => listed(policies.of(principalIn(call)), call)
    },
    ListPolicyPrincipals: {
      method: 'GET',
      url: '/policy-principals',
      run: call => {
        const { items, next } = targetsOf(text(call.headers['x-amzn-iot-policy'], 'policyName', POLICY_NAME), call)
        return { principals: items, nextMarker: next }
      }
    }
  }
}
