import { GetPolicyCommand, type IoTClient } from '@aws-sdk/client-iot'
import type { Products } from '../vending/product.ts'
import type { SetupCheck } from '../vending/setup.ts'

/** Named in full up to this many products. */
const MANY = 5

/**
 * The checks of the policies that certificates get, one for each policy: that AWS IoT has it (`GetPolicy`). Without it nothing is vended
 * for its products; others go on, so the fault is never fatal. `region` is for the texts.
 */
export function policyChecks (client: IoTClient, products: Products, region: string): SetupCheck[] {
  const users = new Map<string, string[]>()
  for (const { name, policyName } of products.values()) users.set(policyName, [...users.get(policyName) ?? [], name])
  return [...users].map(([policyName, names]) => {
    const subject = `the AWS IoT policy ${policyName} in ${region}`
    return {
      subject,
      action: 'iot:GetPolicy',
      dependency: 'aws-iot',
      async look (signal) {
        try {
          await client.send(new GetPolicyCommand({ policyName }), { abortSignal: signal })
          return []
        } catch (cause) {
          if ((cause as Error).name !== 'ResourceNotFoundException') throw cause
          const of = `${names.slice(0, MANY).join(', ')}${names.length > MANY ? ` and ${names.length - MANY} more` : ''}`
          const text = `The AWS IoT policy ${policyName} does not exist in ${region}, so that no certificate can be bound for the product ${of}. Apply infra/iot.tf (aws_iot_policy.device), create the policy, or name another by IOT_POLICY_NAME or policyName in PRODUCTS_FILE.`
          return [{ part: 'policy', dependency: 'aws-iot', isFatal: false, text }]
        }
      }
    }
  })
}
