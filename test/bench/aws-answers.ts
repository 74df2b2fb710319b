// A process of its own that answers every call to AWS after the time it was told, as AWS would if every condition held and every CSR had
// the same key: so only the caller's side of a call costs anything where it is measured. To a claim for `replay-…` it says that this
// device has its certificate, to one for `wrong-…` that its token is another.
// Arguments: milliseconds for an answer, and the PEM of the one certificate.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

type Item = Record<string, unknown>
interface Update {
  Key: { serialNumber?: { S: string } }
  UpdateExpression?: string
  ExpressionAttributeNames?: Record<string, string>
  ExpressionAttributeValues?: Item
}

const delayMs = Number(process.argv[2] ?? 0)
const certificatePem = process.argv[3] ?? ''
const certificateId = createHash('sha256').update(Buffer.from(certificatePem.replace(/-----[A-Z ]+-----|\s/g, ''), 'base64')).digest('hex')
const ARN = `arn:aws:iot:us-east-1:000000000000:cert/${certificateId}`
const ISSUED = JSON.stringify({ certificateId, certificateArn: ARN, certificatePem })
const rows = new Map<string, Item>()
const expressions = new Map<string, { sets: [name: string, value: string][], removes: string[] }>()

function read (expression: string) {
  const known = expressions.get(expression)
  if (known) return known
  const sets = [...expression.matchAll(/([#\w]+) = (:\w+)/g)].map(([, name, value]): [string, string] => [name!, value!])
  const removes = /REMOVE (.*?)(?: SET | ADD |$)/.exec(expression)?.[1]?.split(', ') ?? []
  expressions.set(expression, { sets, removes })
  return { sets, removes }
}

/** The row after a change, as DynamoDB would send it. A device that is vended is forgotten. */
function updated ({ Key, UpdateExpression = '', ExpressionAttributeNames: names = {}, ExpressionAttributeValues: values = {} }: Update): string {
  const serialNumber = Key.serialNumber?.S ?? ''
  const row: Item = { ...rows.get(serialNumber), ...Key }
  const { sets, removes } = read(UpdateExpression)
  for (const [name, value] of sets) row[names[name] ?? name] = values[value]
  for (const name of removes) delete row[names[name] ?? name]
  if (row['claimId']) rows.set(serialNumber, row)
  else rows.delete(serialNumber)
  return JSON.stringify({ Attributes: row })
}

/** What is in the way of a claim, if anything is. */
function inTheWay ({ Key, UpdateExpression = '', ExpressionAttributeValues: values = {} }: Update): string | undefined {
  const serialNumber = Key.serialNumber?.S ?? ''
  const [kind] = serialNumber.split('-')
  if ((kind !== 'replay' && kind !== 'wrong') || !UpdateExpression.includes('tokenHash = :tokenHash')) return undefined
  const certificate = { certificateId: { S: certificateId }, certificateArn: { S: ARN }, certificatePem: { S: certificatePem }, thingName: { S: serialNumber }, way: { S: 'csr' } }
  const times = { issuedAt: { N: '1' }, notAfter: { N: '2500000000000' }, committedAt: { N: String(Date.now()) } }
  const Item = {
    ...Key,
    state: { S: 'ACTIVE' },
    tokenHash: kind === 'replay' ? values[':tokenHash'] : { S: 'x'.repeat(43) },
    publicKeyFingerprint: values[':fingerprint'],
    ...certificate,
    ...times
  }
  return JSON.stringify({ __type: 'com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException', message: 'The conditional request failed', Item })
}

function answerTo (operation: string, path: string, body: () => string): { status: number, text: string } {
  if (operation !== 'UpdateItem') return { status: 200, text: path.startsWith('/certificates?') ? ISSUED : '{}' }
  const update = JSON.parse(body()) as Update
  const refusal = inTheWay(update)
  return refusal === undefined ? { status: 200, text: updated(update) } : { status: 400, text: refusal }
}

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => { chunks.push(chunk) }).on('end', () => {
    const operation = String(request.headers['x-amz-target'] ?? '').split('.')[1] ?? ''
    const { status, text } = answerTo(operation, request.url ?? '', () => Buffer.concat(chunks).toString())
    const send = () => response.writeHead(status, { 'content-type': operation ? 'application/x-amz-json-1.0' : 'application/json', 'x-amzn-requestid': 'bench' }).end(text)
    if (delayMs > 0) setTimeout(send, delayMs)
    else send()
  })
})
server.keepAliveTimeout = 60_000
server.listen(0, '127.0.0.1', () => process.send!(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
process.on('disconnect', () => process.exit())
