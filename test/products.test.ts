// The file of products: what it may say, every fault at once, and what stands where it says nothing.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ConfigError, readConfig } from '../src/config.ts'
import { PRODUCT, productFaults, readProducts } from '../src/products.ts'

const folder = mkdtempSync(join(tmpdir(), 'cvm-products-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const file = join(folder, 'products.json')

const ENVIRONMENT = { PRODUCTS_FILE: file, IOT_POLICY_NAME: 'policy', RENEW_AFTER_MS: 10, REPLAY_WINDOW_MS: 20 }
// eslint-disable-next-line no-template-curly-in-string -- written so in the file
const TEMPLATE = '${serialNumber}'

function write (content: unknown): void {
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
}

function faultsOf (...products: unknown[]): string[] {
  write(products)
  return productFaults(ENVIRONMENT)
}

await t.test('without a file there is one product, with the environment\'s settings', async t => {
  t.strictSame([...readProducts({ ...ENVIRONMENT, PRODUCTS_FILE: '' })], [['default', {
    name: 'default',
    policyName: 'policy',
    thingType: undefined,
    thingGroups: [],
    attributes: {},
    keyTypes: ['EC-P256', 'EC-P384', 'EC-P521', 'RSA'],
    minRsaBits: 2048,
    subject: 'serial-number-or-none',
    serialNumberFrom: 'CommonName',
    keyReuse: 'refuse',
    selfSigned: false,
    openEnrolment: false,
    thingNameTemplate: TEMPLATE,
    renewAfterMs: 10,
    replayWindowMs: 20,
    reVendGraceMs: 0,
    renewExpiredForMs: 0,
    generatedKeys: true,
    estBase64: 'lines',
    repair: 'report',
    lineRegistration: false
  }]])
})

await t.test('what a product does not say is as usual; `default` may be changed', async t => {
  write([{ name: 'sensor', policyName: 'sensors', generatedKeys: false }, { name: 'default', renewAfterMs: 5 }])
  const products = readProducts(ENVIRONMENT)
  t.same([...products.keys()].sort(), ['default', 'sensor'])
  t.match(products.get('sensor'), { policyName: 'sensors', generatedKeys: false, renewAfterMs: 10, thingNameTemplate: TEMPLATE })
  t.match(products.get('default'), { policyName: 'policy', renewAfterMs: 5, replayWindowMs: 20 })
  write([{ name: 'sensor' }])
  t.same([...readProducts(ENVIRONMENT).keys()].sort(), ['default', 'sensor'])
})

await t.test('what is allowed', async t => {
  t.same(faultsOf({
    name: 'A.b_c-1',
    policyName: 'p+=,.@-_',
    thingType: 'type:1',
    thingGroups: Array.from({ length: 10 }, (_, n) => `group-${n}`),
    attributes: Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`a.,@/:#_-${n}`, 'v=[1]'])),
    keyTypes: ['RSA'],
    minRsaBits: 2048,
    subject: 'serial-number',
    serialNumberFrom: 'DistinguishedNameQualifier',
    keyReuse: 'warn',
    selfSigned: true,
    openEnrolment: true,
    thingNameTemplate: `${'x'.repeat(100)}${TEMPLATE}${'y'.repeat(27)}`,
    renewAfterMs: 1,
    replayWindowMs: 1,
    reVendGraceMs: 0,
    renewExpiredForMs: 0,
    generatedKeys: true,
    estBase64: 'one-line',
    repair: 'aws',
    lineRegistration: true
  }, { name: 'ec', keyTypes: ['EC-P256'], generatedKeys: false, attributes: { a: '1', b: '2', c: '3' } }), [])
})

await t.test('each fault names product, member and what is allowed', async t => {
  const wrong: Record<string, unknown[]> = {
    name: ['', 'a b', 'x'.repeat(65), 7, null],
    policyName: ['', 'a b', 'x'.repeat(129), 1],
    thingType: ['', 'a.b', 'x'.repeat(129)],
    thingGroups: ['a', ['a', 'a'], ['a.b'], Array.from({ length: 11 }, (_, n) => `g${n}`)],
    attributes: [[], { 'a b': 'x' }, { a: '' }, { a: 1 }, { a: 'x y' }, { a: 'x'.repeat(801) }, { ['x'.repeat(129)]: 'x' }],
    keyTypes: [[], 'RSA', ['DSA'], ['RSA', 'RSA']],
    minRsaBits: [1024, 4097, 2048.5, '2048'],
    subject: ['anything', true],
    serialNumberFrom: ['commonName', 'Email', ['CommonName']],
    keyReuse: ['allow', true],
    selfSigned: ['true', 1],
    openEnrolment: ['yes', 0],
    thingNameTemplate: ['', 'name', TEMPLATE.toLowerCase(), `${TEMPLATE}${TEMPLATE}`, `a.${TEMPLATE}`, `${'x'.repeat(128)}${TEMPLATE}`],
    renewAfterMs: [0, -1, 1.5, '1', 2 ** 60],
    replayWindowMs: [0],
    reVendGraceMs: [-1, null],
    renewExpiredForMs: [-1, 'never'],
    generatedKeys: ['true', 1],
    estBase64: ['line', true],
    repair: ['always', true],
    lineRegistration: ['true', 0]
  }
  t.same(Object.keys(wrong), Object.keys(PRODUCT.properties), 'every member')
  for (const [member, values] of Object.entries(wrong)) {
    for (const value of values) {
      const faults = faultsOf({ name: 'sensor', [member]: value })
      t.equal(faults.length, 1, `${member}: ${JSON.stringify(value)?.slice(0, 40)}`)
      const product = member !== 'name' ? 'product "sensor"' : typeof value === 'string' ? 'product ' : 'product number 1'
      const { allowed } = PRODUCT.properties[member as 'name'] as { allowed?: string }
      t.ok(allowed && faults[0]?.startsWith(`PRODUCTS_FILE ${product}`) && faults[0].includes(`: ${member} must be ${allowed}, not `), `${member}: ${faults[0]}`)
    }
  }
  t.match(faultsOf({}), [/^PRODUCTS_FILE product number 1: name must be .*, not nothing$/])
  t.match(faultsOf({ name: 'a', attributes: { a: '1', b: '2', c: '3', d: '4' } }), [/product "a": attributes must be at most 3 without thingType, not 4/])
  for (const rules of [{ keyTypes: ['EC-P256'] }, { minRsaBits: 3072 }]) {
    t.match(faultsOf({ name: 'a', ...rules }), [/product "a": generatedKeys must be false where/])
    t.same(faultsOf({ name: 'a', ...rules, generatedKeys: false }), [])
  }
})

await t.test('every fault of every product at once', async t => {
  const faults = faultsOf({ name: 'a', policyName: '', keyTypes: [], colour: 'red' }, 7, { name: 'a' }, { name: 'b', thingType: '', minRsaBits: 4096 })
  const expected = [
    /product "a": "colour" is no member; there are name, policyName, /, /product "a": policyName must be /, /product "a": keyTypes must be /,
    /product number 2 must be an object with a name/, /product "a": there must be one of that name, not two/,
    /product "b": thingType must be /, /product "b": generatedKeys must be false/
  ]
  t.equal(faults.length, expected.length, faults.join('\n'))
  for (const pattern of expected) t.ok(faults.some(fault => pattern.test(fault)), String(pattern))
  t.match(faultsOf(...Array.from({ length: 101 }, (_, n) => ({ name: `p${n}` }))), [/must hold at most 100 products, not 101/])
  for (const content of ['{', '{}', 'null', '"a"', '[{"name":"a"}]x']) {
    write(content)
    t.match(productFaults(ENVIRONMENT), [/^PRODUCTS_FILE must hold a JSON array of products$/], content)
  }
  writeFileSync(file, '[{"name":"x","__proto__":{"policyName":""},"constructor":1}]')
  t.match(productFaults(ENVIRONMENT), [/"__proto__" is no member/, /"constructor" is no member/])
})

await t.test('with the faults of the environment, in one error', async t => {
  write([{ name: 'a', minRsaBits: 1 }])
  const faults = (env: Record<string, string>) => {
    const error = t.throws(() => readConfig(env, productFaults), ConfigError)
    return (error as unknown as ConfigError).faults
  }
  t.match(faults({ PRODUCTS_FILE: file, PORT: 'x' }), [/^PORT must be/, /^PRODUCTS_FILE product "a": minRsaBits must be/])
  writeFileSync(join(folder, 'empty.json'), '')
  for (const unreadable of [join(folder, 'nope'), folder, join(folder, 'empty.json')]) {
    t.match(faults({ PRODUCTS_FILE: unreadable }), [/^PRODUCTS_FILE must name a file that can be read$/])
  }
  t.throws(() => readProducts(ENVIRONMENT), ConfigError, 'and never half-started')
  write([{ name: 'a' }])
  t.equal(readConfig({ PRODUCTS_FILE: file }, productFaults).PRODUCTS_FILE, file)
})

await t.test('the README\'s example is one', async t => {
  const example = /<!-- example: products -->\n```json\n([^]*?)```/.exec(readFileSync(new URL('../README.md', import.meta.url), 'utf8'))?.[1]
  t.ok(example)
  write(example ?? '')
  t.same(productFaults(ENVIRONMENT), [])
  t.ok(readProducts(ENVIRONMENT).size > 1)
})
