import { createPublicKey, randomBytes } from 'node:crypto'
import t from 'tap'
import { CvmError } from '../../src/errors.ts'
import { checkCsr } from '../../src/x509/csr.ts'
import { weaknessOf } from '../../src/x509/weak-keys.ts'
import { fieldText } from '../fixtures/field.ts'
import { opensslKey } from '../fixtures/openssl.ts'

const bytes = (n: bigint): Buffer => {
  const text = n.toString(16)
  return Buffer.from(text.length % 2 ? `0${text}` : text, 'hex')
}
const numbers = (count: number): number[] => [...Array(count).keys()]
const random = (bits: number): bigint => BigInt(`0x${randomBytes(bits / 8).toString('hex')}`) | 1n | (3n << BigInt(bits - 2))
const root = (n: bigint): bigint => {
  let [low, high] = [0n, 1n << BigInt(n.toString(2).length)]
  while (high - low > 1n) {
    const middle = (low + high) >> 1n
    if (middle * middle <= n) low = middle
    else high = middle
  }
  return low
}

await t.test('a key that a ROCA library made is refused, by what the key alone shows', async t => {
  const csr = fieldText('08a-roca-2048.csr')
  try {
    checkCsr(csr, { serialNumber: 'sn' })
    t.fail('it was taken')
  } catch (error) {
    t.ok(error instanceof CvmError)
    t.match(error, { code: 'csr-rejected', reason: 'rsa-key-weak', message: /ROCA/ })
  }
  // Products of numbers of the library's form, of its M for keys of 2048 bits (the first 126 primes) and for all sizes (39).
  for (const count of [39, 126]) {
    const primes = numbers(702).filter(n => n > 1 && numbers(27).every(d => d < 2 || d === n || n % d !== 0)).slice(0, count)
    const M = primes.reduce((product, prime) => product * BigInt(prime), 1n)
    const power = (exponent: number) => numbers(exponent).reduce(value => value * 65537n % M, 1n)
    const n = (random(40) * M + power(1_234)) * (random(40) * M + power(777))
    t.match(weaknessOf(bytes(n)), /ROCA/, `${count} primes`)
    t.equal(weaknessOf(bytes(n + 2n)), undefined, `${count} primes, another number`)
  }
})

await t.test('neighbouring primes are refused where 100 rounds of Fermat find them', async t => {
  for (let tries = 0; tries < 5; tries++) {
    const middle = random(1024)
    // n = middle² - distance² is found after distance² / (2 middle) rounds.
    const found = (rounds: bigint) => {
      const distance = root(2n * middle * rounds) + 1n
      const n = middle * middle - distance * distance
      return weaknessOf(bytes(n)) !== undefined
    }
    t.ok(found(0n), 'at once')
    t.ok(found(99n), 'in the last round')
    t.notOk(found(100n), 'one round later')
  }
  t.match(weaknessOf(bytes(random(1024) ** 2n)), /close/, 'a square')
})

await t.test('keys as openssl makes them are not weak', async t => {
  for (const kind of ['rsa', 'rsa-3072', 'rsa-4096'] as const) {
    const { n = '' } = createPublicKey(await opensslKey(kind)).export({ format: 'jwk' })
    t.equal(weaknessOf(Buffer.from(n, 'base64url')), undefined, kind)
  }
  const suspects = Array.from({ length: 2_000 }, () => weaknessOf(bytes(random(2048)))).filter(Boolean)
  t.same(suspects, [], 'nor are 2,000 random numbers')
})
