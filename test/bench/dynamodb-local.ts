import { GenericContainer, Wait } from 'testcontainers'
import { DYNAMODB_LOCAL_URL } from '../fixtures/dynamodb-local.ts'

/** DynamoDB Local, of its own or the one that `TEST_DYNAMODB_LOCAL_URL` names; why there is none. */
export async function dynamodbLocal (): Promise<{ url: string, stop: () => Promise<unknown> } | string> {
  const url = DYNAMODB_LOCAL_URL
  if (url) return { url, stop: async () => {} }
  process.env['TESTCONTAINERS_RYUK_DISABLED'] ??= 'true'
  try {
    const container = await new GenericContainer('amazon/dynamodb-local:3.3.1')
      .withCommand(['-Xmx1g', '-jar', 'DynamoDBLocal.jar', '-inMemory', '-sharedDb'])
      .withExposedPorts(8000)
      .withWaitStrategy(Wait.forListeningPorts())
      .start()
    return { url: `http://${container.getHost()}:${container.getMappedPort(8000)}`, stop: () => container.stop() }
  } catch (cause) {
    return (cause as Error).message.split('\n')[0] ?? 'unknown'
  }
}
