import type { Account } from './account.ts'
import { authorityOperations } from './authority-operations.ts'
import { invalidRequest } from './aws-error.ts'
import { certificateOperations } from './certificate-operations.ts'
import { optionalText } from './constraints.ts'
import { dataOperations } from './data-operations.ts'
import type { Operations } from './operation.ts'
import { policyOperations } from './policy-operations.ts'
import { policyTargetOperations } from './policy-target-operations.ts'
import { principalOperations } from './principal-operations.ts'
import { registerOperations } from './register-operations.ts'
import { destinationOperations, ruleOperations } from './rule-operations.ts'
import { tagOperations } from './tag-operations.ts'
import { thingGroupOperations } from './thing-group-operations.ts'
import { thingOperations } from './thing-operations.ts'
import { thingTypeOperations } from './thing-type-operations.ts'

const ENDPOINT_TYPES = ['iot:Data', 'iot:Data-ATS', 'iot:CredentialProvider', 'iot:Jobs', 'iot:DeviceAdvisor', 'iot:Data-Beta']

/** Every operation the local AWS IoT has, of both planes. */
export function operationsOf (account: Account): Operations {
  return {
    ...certificateOperations(account),
    ...registerOperations(account),
    ...authorityOperations(account),
    ...thingOperations(account),
    ...principalOperations(account),
    ...thingTypeOperations(account),
    ...thingGroupOperations(account),
    ...policyOperations(account),
    ...policyTargetOperations(account),
    ...tagOperations(account),
    ...ruleOperations(account),
    ...destinationOperations(account),
    ...dataOperations(account),
    ...endpoint(account)
  }
}

function endpoint (account: Account): Operations {
  return {
    DescribeEndpoint: {
      method: 'GET',
      url: '/endpoint',
      run: ({ query }) => {
        const type = optionalText(query['endpointType'], 'endpointType', { values: ENDPOINT_TYPES })
        // AWS refuses iot:Data and iot:Jobs since 2026; the other kinds of endpoint have nothing behind them here.
        if (type !== undefined && type !== 'iot:Data-ATS') throw invalidRequest(`The endpoint type ${type} is not available; ask for iot:Data-ATS`)
        return { endpointAddress: account.endpoint }
      }
    }
  }
}
