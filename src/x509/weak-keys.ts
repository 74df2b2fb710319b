/** The primes that divide the ROCA modulus M of every key size: the first 39. Nemec et al., CCS 2017, table 1. */
const ROCA_PRIMES = [
  2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137,
  139, 149, 151, 157, 163, 167
]

/** Infineon's library makes primes of the form k · M + (65537^a mod M). */
const ROCA_GENERATOR = 65537

/** For each informative prime, the residues that 65537 generates. The most informative primes come first: most keys take two divisions. */
const ROCA_RESIDUES: ReadonlyArray<readonly [prime: bigint, residues: ReadonlySet<bigint>]> = ROCA_PRIMES
  .map(prime => [prime, generatedBy(ROCA_GENERATOR, prime)] as const)
  .filter(([prime, residues]) => residues.size < prime - 1)
  .sort(([p, a], [q, b]) => a.size / p - b.size / q)
  .map(([prime, residues]) => [BigInt(prime), new Set([...residues].map(BigInt))])

const FERMAT_ROUNDS = 100

/** What is wrong with an RSA modulus whose factors are easy to find, as text for a refusal; `undefined` where nothing is known. */
export function weaknessOf (modulus: Buffer): string | undefined {
  const n = BigInt(`0x${modulus.toString('hex')}`)
  if (isRoca(n)) return 'a library with the ROCA flaw made it, CVE-2017-15361'
  return hasNeighbouringPrimes(n) ? 'its two primes are too close to each other, CVE-2022-26320' : undefined
}

/**
 * Whether the modulus has the fingerprint of CVE-2017-15361 (ROCA): for each prime factor of M it is a power of 65537. About
 * one in 2^27 other keys has it too.
 */
function isRoca (n: bigint): boolean {
  return ROCA_RESIDUES.every(([prime, residues]) => residues.has(n % prime))
}

/** Fermat's factorisation, 100 rounds, as CA/Browser Forum Baseline Requirements section 6.1.1.3 ask. */
function hasNeighbouringPrimes (n: bigint): boolean {
  const root = squareRoot(n)
  let a = root * root === n ? root : root + 1n
  let difference = a * a - n
  for (let round = 0; round < FERMAT_ROUNDS; round++) {
    if (isSquare(difference)) return true
    difference += 2n * a + 1n
    a += 1n
  }
  return false
}

function isSquare (value: bigint): boolean {
  if (!SQUARES_MOD_256.has(Number(BigInt.asUintN(8, value)))) return false
  const remainder = Number(value % 45_045n)
  if (!SMALL_SQUARES.every(([modulus, squares]) => squares.has(remainder % modulus))) return false
  const root = squareRoot(value)
  return root * root === value
}

/** The squares modulo 256, and modulo the coprime factors of 45,045: what is none there is no square at all. */
const SQUARES_MOD_256 = squaresOf(256)
const SMALL_SQUARES = [9, 5, 7, 11, 13].map(modulus => [modulus, squaresOf(modulus)] as const)

/** The integer square root, by Newton's method from above. */
function squareRoot (value: bigint): bigint {
  if (value < 2n) return value
  let root = 1n << BigInt(Math.ceil(value.toString(16).length * 2))
  for (;;) {
    const next = (root + value / root) >> 1n
    if (next >= root) return root
    root = next
  }
}

function squaresOf (modulus: number): ReadonlySet<number> {
  return new Set(Array.from({ length: modulus }, (_, n) => n * n % modulus))
}

function generatedBy (generator: number, prime: number): ReadonlySet<number> {
  const found = new Set<number>()
  for (let power = 1; !found.has(power); power = power * generator % prime) found.add(power)
  return found
}
