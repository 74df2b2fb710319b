/* eslint no-template-curly-in-string: off -- policy variables */
import t from 'tap'
import { certificateVariables } from '../../src/local/certificate-variables.ts'
import { allows, parsePolicy } from '../../src/local/policy.ts'
import type { Variables } from '../../src/local/policy-pattern.ts'
import { openssl, opensslCsr, P256 } from './rig.ts'

const doc = (...statements: object[]) => parsePolicy(JSON.stringify({ Version: '2012-10-17', Statement: statements }))
const allow = (Action: unknown, Resource: unknown, more: object = {}) => ({ Effect: 'Allow', Action, Resource, ...more })
const when = (Condition: object) => doc({ Effect: 'Allow', Action: 'iot:Connect', Resource: '*', Condition })

await t.test('variables of a certificate', async t => {
  const { foreign } = opensslCsr(P256, '/C=DE/O=First/O=Second/OU=a/OU=b/OU=c/OU=d/OU=e/OU=f/CN=dev-1/serialNumber=S 1/title=ü', ['-utf8'])
  const variables = certificateVariables(foreign)
  const cases: Array<[string, string | string[] | undefined]> = [
    ['Subject.Country', 'DE'], ['Subject.Organization', 'First'], ['Subject.Organization.1', 'Second'], ['Subject.Organization.2', undefined],
    ['Subject.Organization.List', ['First', 'Second']], ['Subject.OrganizationalUnit.List', ['a', 'b', 'c', 'd', 'e']],
    ['Subject.OrganizationalUnit.5', undefined], ['Subject.CommonName', 'dev-1'], ['Subject.SerialNumber', 'S 1'], ['Subject.Title', 'ü'],
    ['Issuer.CommonName', 'dev-1'], ['Subject.State', undefined]
  ]
  for (const [name, value] of cases) t.same(variables.get(`iot:Certificate.${name}`), value, name)
  t.match(variables.get('iot:Certificate.SerialNumber'), /^[0-9A-F]+$/)
  const available = variables.get('iot:Certificate.AvailableKeys') ?? []
  t.ok(available.includes('iot:Certificate.Subject.Title') && !available.includes('iot:Certificate.Subject.State'))
})

await t.test('alternative names', async t => {
  const names = 'subjectAltName=DNS:a.example,DNS:b.example,email:x@a.example,URI:urn:x,IP:10.0.0.1,IP:2001:db8::1,dirName:d\n[d]\nCN=x'
  const { cert } = selfSigned(names)
  const variables = certificateVariables(cert)
  t.same(variables.get('iot:Certificate.Subject.AlternativeName.DNSName.List'), ['a.example', 'b.example'])
  t.equal(variables.get('iot:Certificate.Subject.AlternativeName.RFC822Name'), 'x@a.example')
  t.equal(variables.get('iot:Certificate.Subject.AlternativeName.UniformResourceIdentifier'), 'urn:x')
  t.same(variables.get('iot:Certificate.Subject.AlternativeName.IPAddress.List'), ['10.0.0.1', '2001:db8:0:0:0:0:0:1'])
})

await t.test('what is not substituted', async t => {
  const connects = (resource: string, variables: Variables, to = 'client/x') => allows([doc(allow('iot:Connect', resource))], 'iot:Connect', to, variables)
  for (const value of ['a*', 'a$', 'a+', 'a?', 'a#', 'x'.repeat(1025)]) {
    t.notOk(connects('client/${iot:ClientId}', new Map([['iot:ClientId', value]]), `client/${value}`), value.slice(0, 5))
  }
  t.ok(connects('client/${iot:ClientId}', new Map([['iot:ClientId', 'x']])))
  t.notOk(connects('client/${iot:Certificate.Subject.Country.List}', new Map([['iot:Certificate.Subject.Country.List', ['x']]])), 'a list')
  t.ok(connects('client/${*}', new Map(), 'client/*'), 'a predefined character')
  t.notOk(connects('client/${*}', new Map()))
})

await t.test('conditions', async t => {
  const variables: Variables = new Map<string, string | string[]>([
    ['aws:SourceIp', '10.1.2.3'], ['iot:ClientId', 'dev'], ['iot:Certificate.Subject.Organization.List', ['A', 'B']]
  ])
  const orgs = 'iot:Certificate.Subject.Organization.List'
  const cases: Array<[object, boolean]> = [
    [{ IpAddress: { 'aws:SourceIp': '10.0.0.0/8' } }, true],
    [{ IpAddress: { 'aws:SourceIp': ['192.168.0.0/16', '10.1.2.3'] } }, true],
    [{ IpAddress: { 'aws:SourceIp': ['192.168.0.0/16', '::/0'] } }, false],
    [{ NotIpAddress: { 'aws:SourceIp': '10.0.0.0/8' } }, false],
    [{ NotIpAddress: { 'aws:SourceIp': '2001:db8::/32' } }, true],
    [{ StringEquals: { 'iot:ClientId': 'd?v' } }, false],
    [{ StringEquals: { [orgs]: 'B' } }, true],
    [{ 'ForAnyValue:StringEquals': { [orgs]: ['B', 'C'] } }, true],
    [{ 'ForAllValues:StringEquals': { [orgs]: ['B', 'C'] } }, false],
    [{ 'ForAllValues:StringEquals': { [orgs]: ['A', 'B', 'C'] } }, true],
    [{ 'ForAllValues:StringLike': { 'iot:Nothing': 'x' } }, true],
    [{ StringLike: { 'iot:Nothing': '*' } }, false],
    [{ StringNotEquals: { 'iot:Nothing': 'x' } }, true],
    [{ StringLike: { 'iot:ClientId': '${iot:ClientId}' } }, true],
    [{ StringEquals: { 'iot:ClientId': '${iot:Nothing}' } }, false]
  ]
  for (const [condition, expected] of cases) {
    t.equal(allows([when(condition)], 'iot:Connect', 'client/dev', variables), expected, JSON.stringify(condition))
  }
})

await t.test('everything but', async t => {
  const decide = (statements: object[], action: string, resource: string) => allows([doc(...statements)], action, resource, new Map())
  const others = { Effect: 'Allow', NotAction: 'iot:Publish', Resource: '*' }
  t.ok(decide([others], 'iot:Connect', 'client/x'))
  t.notOk(decide([others], 'iot:Publish', 'topic/x'))
  const elsewhere = { Effect: 'Allow', Action: '*', NotResource: ['topic/secret/*'] }
  t.ok(decide([elsewhere], 'iot:Publish', 'topic/x'))
  t.notOk(decide([elsewhere], 'iot:Publish', 'topic/secret/x'))
  t.notOk(decide([{ ...elsewhere, NotResource: 'topic/${iot:Nothing}' }], 'iot:Publish', 'topic/x'), 'an Allow that cannot be resolved')
  t.notOk(decide([allow('*', '*'), { Effect: 'Deny', Action: '*', NotResource: 'topic/${iot:Nothing}' }], 'iot:Publish', 'topic/x'), 'nor can a Deny')
})

function selfSigned (extension: string): { cert: string } {
  const dir = t.testdir({ 'x.cnf': `[req]\ndistinguished_name=dn\nx509_extensions=e\n[dn]\n[e]\n${extension}\n` })
  return { cert: openssl(['req', '-x509', '-newkey', ...P256, '-nodes', '-keyout', '/dev/null', '-subj', '/CN=x', '-days', '1', '-config', 'x.cnf'], { cwd: dir }) }
}
