/**
 * The AWS IoT policy of devices: a device connects under the name of its thing, and uses its own topics and its own shadows, classic
 * and named. `arnPrefix` is `arn:aws:iot:REGION:ACCOUNT`; `topics` are the levels above the thing's name. infra/device-policy.json and
 * the README show the same document (test/infra/device-policy.test.ts).
 */
export function devicePolicy (arnPrefix: string, topics = 'devices'): object {
  // eslint-disable-next-line no-template-curly-in-string -- a policy variable, which AWS IoT fills in
  const thing = '${iot:Connection.Thing.ThingName}'
  const own = (kind: string): string[] => [`${topics}/${thing}/*`, `$aws/things/${thing}/shadow/*`].map(topic => `${arnPrefix}:${kind}/${topic}`)
  return {
    Version: '2012-10-17',
    Statement: [
      { Effect: 'Allow', Action: 'iot:Connect', Resource: `${arnPrefix}:client/${thing}` },
      { Effect: 'Allow', Action: ['iot:Publish', 'iot:Receive'], Resource: own('topic') },
      { Effect: 'Allow', Action: 'iot:Subscribe', Resource: own('topicfilter') }
    ]
  }
}
