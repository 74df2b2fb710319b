// What AWS would refuse if it were wrong, and the local AWS does not look at: the hash that requests are signed with.
import { createHash, createHmac, randomBytes } from 'node:crypto'
import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import t from 'tap'
import { SigningHash } from '../../src/adapters/signing-hash.ts'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

await t.test('it is SHA-256, and HMAC by every kind of key, as often as one comes', async t => {
  const bytes = new Uint8Array(randomBytes(64))
  const view = bytes.subarray(16, 48)
  const hash = new SigningHash()
  hash.update('a text')
  hash.update(view)
  t.equal(hex(await hash.digest()), createHash('sha256').update('a text').update(view).digest('hex'))
  for (const secret of ['a secret', 'another', 'a secret', view, bytes, view, bytes.buffer.slice(8, 40)]) {
    const hmac = new SigningHash(secret)
    hmac.update(bytes.buffer)
    const key = secret instanceof ArrayBuffer ? new Uint8Array(secret) : secret
    t.equal(hex(await hmac.digest()), createHmac('sha256', key).update(bytes).digest('hex'))
  }
  t.throws(() => new SigningHash().reset(), /once/)
})

await t.test('requests are signed as by the SDK\'s own', async t => {
  const signingDate = new Date('2026-01-01T00:00:00Z')
  const signatureBy = async (accessKeyId: string, secretAccessKey: string, sha256?: typeof SigningHash) => {
    const client = new DynamoDBClient({
      region: 'us-east-1',
      credentials: { accessKeyId, secretAccessKey },
      endpoint: 'http://127.0.0.1:9',
      maxAttempts: 1,
      ...(sha256 && { sha256 })
    })
    const signer = await client.config.signer({ name: 'sigv4', signingName: 'dynamodb', signingRegion: 'us-east-1', properties: {} })
    const request = { method: 'POST', protocol: 'http:', hostname: 'h', path: '/', headers: { host: 'h' }, query: {}, body: '{"a":1}' }
    const { authorization } = (await signer.sign(request, { signingDate })).headers
    client.destroy()
    return authorization ?? ''
  }
  for (const [id, secret] of [['one', 'secret-1'], ['two', 'secret-2'], ['one', 'secret-1']] as const) {
    const theirs = await signatureBy(id, secret)
    t.match(theirs, /^AWS4-HMAC-SHA256 Credential=.*Signature=[0-9a-f]{64}$/)
    t.equal(await signatureBy(id, secret, SigningHash), theirs)
  }
})
