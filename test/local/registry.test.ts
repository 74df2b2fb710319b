import * as aws from '@aws-sdk/client-iot'
import t, { type Test } from 'tap'
import { ThingTypes } from '../../src/local/thing-types.ts'
import { opensslCsr, P256, startRig } from './rig.ts'

const { iot, close } = await startRig()
t.teardown(close)

const I = 'InvalidRequestException'
const N = 'ResourceNotFoundException'
const E = 'ResourceAlreadyExistsException'
const W = 'VersionConflictException'
type Case = [call: () => Promise<unknown>, name: string, status: number, message: RegExp]
const refuse = async (t: Test, cases: Case[]): Promise<void> => {
  for (const [call, name, status, message] of cases) await t.rejects(call(), { name, message, $metadata: { httpStatusCode: status } })
}
const many = (count: number): Record<string, string> => Object.fromEntries(Array.from({ length: count }, (_, n) => [`a${n}`, 'v']))

await t.test('things change, and their versions count it', async t => {
  const update = async (input: Partial<aws.UpdateThingRequest>) => await iot.send(new aws.UpdateThingCommand({ thingName: 'pump', ...input }))
  const told = async () => await iot.send(new aws.DescribeThingCommand({ thingName: 'pump' }))
  await iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'Pump', thingTypeProperties: { thingTypeDescription: 'moves water' } }))
  await iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'Dead' }))
  await iot.send(new aws.DeprecateThingTypeCommand({ thingTypeName: 'Dead' }))
  await iot.send(new aws.CreateThingCommand({ thingName: 'pump', attributePayload: { attributes: { a: '1', b: '2' } } }))

  await update({ attributePayload: { attributes: { b: '3', c: '4' }, merge: true } })
  t.match(await told(), { version: 2, attributes: { a: '1', b: '3', c: '4' } })
  await update({ attributePayload: { attributes: { a: '' }, merge: true } })
  t.same((await told()).attributes, { b: '3', c: '4' }, 'an empty value removes')
  await update({ attributePayload: { attributes: { z: '9' } }, expectedVersion: 3 })
  t.same((await told()).attributes, { z: '9' }, 'without merge, what is sent is all')
  await update({ thingTypeName: 'Pump', attributePayload: { attributes: many(50) } })
  t.match(await told(), { version: 5, thingTypeName: 'Pump' })

  await refuse(t, [
    [() => update({ expectedVersion: 4 }), W, 409, /expected version 4/],
    [() => update({ thingTypeName: 'Pump', removeThingType: true }), I, 400, /removeThingType/],
    [() => update({ removeThingType: true }), I, 400, /more than 3/],
    [() => update({ attributePayload: { attributes: many(51) } }), I, 400, /more than 50/],
    [() => update({ thingTypeName: 'None' }), N, 404, /None/],
    [() => update({ thingTypeName: 'Dead' }), I, 400, /deprecated/],
    [() => update({ thingName: 'gone' }), N, 404, /gone/],
    [() => update({ thingName: '' }), I, 400, /thingName/],
    [() => update({ attributePayload: { attributes: { a: 'b c' } } }), I, 400, /attributePayload\.attributes\.a/],
    [() => update({ expectedVersion: 1.5 }), I, 400, /whole number/],
    [() => update({ removeThingType: 'yes' as unknown as boolean }), I, 400, /boolean/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 'other', thingTypeName: 'Dead' })), I, 400, /deprecated/],
    [() => iot.send(new aws.CreateThingCommand({ thingName: 'pump', thingTypeName: 'Dead' })), E, 409, /pump already exists/]
  ])
  t.equal((await told()).version, 5, 'what is refused changes nothing')
  await update({ removeThingType: true, attributePayload: { attributes: { z: '9' } } })
  t.equal((await told()).thingTypeName, undefined)
})

await t.test('a thing is deleted when nothing is attached, once or twice', async t => {
  const { certificateArn = '' } = await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: opensslCsr(P256).csr }))
  const thingName = 'short'
  const remove = async (expectedVersion?: number) => await iot.send(new aws.DeleteThingCommand({ thingName, expectedVersion }))
  await iot.send(new aws.CreateThingCommand({ thingName }))
  await iot.send(new aws.CreateThingGroupCommand({ thingGroupName: 'of-short' }))
  await iot.send(new aws.AddThingToThingGroupCommand({ thingName, thingGroupName: 'of-short' }))
  await iot.send(new aws.AttachThingPrincipalCommand({ thingName, principal: certificateArn }))
  await refuse(t, [
    [() => remove(), I, 400, /^Cannot delete\. Thing short is still attached to one or more principals$/],
    [() => remove(2), W, 409, /expected version 2/]
  ])
  await iot.send(new aws.DetachThingPrincipalCommand({ thingName, principal: certificateArn }))
  await remove(1)
  await remove()
  await iot.send(new aws.CreateThingCommand({ thingName }))
  t.same((await iot.send(new aws.ListThingsInThingGroupCommand({ thingGroupName: 'of-short' }))).things, [], 'a thing of the same name is another thing')
})

await t.test('things are found by name, type and attribute', async t => {
  await iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'Lamp' }))
  for (let n = 0; n < 7; n++) {
    await iot.send(new aws.CreateThingCommand({
      thingName: `lamp-${n}`, ...(n % 2 === 0 ? { thingTypeName: 'Lamp' } : {}), attributePayload: { attributes: { colour: n < 3 ? 'red' : 'reddish', site: `s${n}` } }
    }))
  }
  const found = async (input: aws.ListThingsRequest): Promise<string[]> => {
    const names: string[] = []
    for await (const { things } of aws.paginateListThings({ client: iot, pageSize: 2 }, input)) names.push(...(things ?? []).map(({ thingName }) => thingName ?? ''))
    return names.filter(name => name.startsWith('lamp-')).map(name => name.slice(5))
  }
  t.same(await found({}), ['0', '1', '2', '3', '4', '5', '6'])
  t.same(await found({ thingTypeName: 'Lamp' }), ['0', '2', '4', '6'])
  t.same(await found({ attributeName: 'colour', attributeValue: 'red' }), ['0', '1', '2'])
  t.same(await found({ attributeName: 'colour', attributeValue: 'red', usePrefixAttributeValue: true }), ['0', '1', '2', '3', '4', '5', '6'])
  t.same(await found({ attributeName: 'colour', attributeValue: 'red', thingTypeName: 'Lamp' }), ['0', '2'])
  t.same(await found({ attributeValue: 's5' }), ['5'])
  t.same(await found({ attributeName: 'colours' }), [])
  await refuse(t, [
    [() => iot.send(new aws.ListThingsCommand({ maxResults: 251 })), I, 400, /maxResults/],
    [() => iot.send(new aws.ListThingsCommand({ attributeName: 'a b' })), I, 400, /attributeName/],
    [() => iot.send(new aws.ListThingsCommand({ nextToken: '!' })), I, 400, /nextToken/]
  ])
})

await t.test('thing types: deprecated, waited for, deleted', async t => {
  const thingTypeName = 'Valve'
  const thingTypeProperties = { thingTypeDescription: 'opens', searchableAttributes: ['site'] }
  const first = await iot.send(new aws.CreateThingTypeCommand({ thingTypeName, thingTypeProperties, tags: [{ Key: 'k', Value: 'v' }] }))
  t.equal((await iot.send(new aws.CreateThingTypeCommand({ thingTypeName, thingTypeProperties }))).thingTypeId, first.thingTypeId)
  t.same((await iot.send(new aws.ListTagsForResourceCommand({ resourceArn: first.thingTypeArn }))).tags, [{ Key: 'k', Value: 'v' }])
  const remove = async () => await iot.send(new aws.DeleteThingTypeCommand({ thingTypeName }))
  await iot.send(new aws.CreateThingCommand({ thingName: 'valve-1', thingTypeName }))
  await refuse(t, [
    [() => iot.send(new aws.CreateThingTypeCommand({ thingTypeName })), E, 409, /Valve already exists/],
    [() => iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'a b' })), I, 400, /thingTypeName/],
    [() => iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'x', thingTypeProperties: { searchableAttributes: ['a', 'b', 'c', 'd'] } })), I, 400, /more than 3/],
    [() => iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'x', thingTypeProperties: { thingTypeDescription: 'x'.repeat(2029) } })), I, 400, /2028/],
    [() => iot.send(new aws.CreateThingTypeCommand({ thingTypeName: 'x', thingTypeProperties: { thingTypeDescription: 'a\nb' } })), I, 400, /pattern/],
    [() => iot.send(new aws.DescribeThingTypeCommand({ thingTypeName: 'x' })), N, 404, /x not found/],
    [() => iot.send(new aws.DeprecateThingTypeCommand({ thingTypeName: 'x' })), N, 404, /x not found/],
    [() => iot.send(new aws.DeleteThingTypeCommand({ thingTypeName: 'x' })), N, 404, /x not found/],
    [remove, I, 400, /deprecated first/]
  ])
  await iot.send(new aws.DeprecateThingTypeCommand({ thingTypeName }))
  await refuse(t, [[remove, I, 400, /associated/]])
  await iot.send(new aws.DeleteThingCommand({ thingName: 'valve-1' }))
  await refuse(t, [[remove, I, 400, /5 minutes/]])
  const told = await iot.send(new aws.DescribeThingTypeCommand({ thingTypeName }))
  t.match(told, { thingTypeProperties, thingTypeMetadata: { deprecated: true } })
  await iot.send(new aws.DeprecateThingTypeCommand({ thingTypeName, undoDeprecate: true }))
  const { thingTypes } = await iot.send(new aws.ListThingTypesCommand({ thingTypeName }))
  t.match(thingTypes, [{ thingTypeName, thingTypeMetadata: { deprecated: false } }])

  let now = 0
  const types = new ThingTypes('arn', () => now)
  types.create('T', {})
  types.deprecate('T', false)
  now = 299_999
  t.throws(() => types.remove('T', false), { name: I })
  now = 300_000
  types.remove('T', false)
  t.throws(() => types.get('T'), { name: N })
})

await t.test('thing groups: hierarchy, members, limits', async t => {
  const create = async (thingGroupName: string, parentGroupName?: string, thingGroupProperties?: aws.ThingGroupProperties) =>
    await iot.send(new aws.CreateThingGroupCommand({ thingGroupName, parentGroupName, thingGroupProperties }))
  const add = async (thingGroupName: string, thingName = 'member') => await iot.send(new aws.AddThingToThingGroupCommand({ thingGroupName, thingName }))
  const { thingArn = '' } = await iot.send(new aws.CreateThingCommand({ thingName: 'member' }))
  const plant = await create('plant', undefined, { thingGroupDescription: 'all of it', attributePayload: { attributes: { a: 'b' } } })
  t.equal((await create('plant', undefined, { thingGroupDescription: 'all of it', attributePayload: { attributes: { a: 'b' } } })).thingGroupId, plant.thingGroupId)
  let parent = 'plant'
  for (let depth = 2; depth <= 7; depth++) {
    await create(`plant-${depth}`, parent)
    parent = `plant-${depth}`
  }
  await create('hall', 'plant')
  t.match(await iot.send(new aws.DescribeThingGroupCommand({ thingGroupName: 'plant-3' })), {
    version: 1, thingGroupMetadata: { parentGroupName: 'plant-2', rootToParentThingGroups: [{ groupName: 'plant' }, { groupName: 'plant-2' }] }
  })

  await add('plant-3')
  await add('plant-3')
  await refuse(t, [
    [() => create('plant'), E, 409, /plant already exists/],
    [() => create('orphan', 'nobody'), I, 400, /nobody not found/],
    [() => create('plant-8', 'plant-7'), I, 400, /deeper than 7/],
    [() => create('a b'), I, 400, /thingGroupName/],
    [() => create('big', undefined, { attributePayload: { attributes: many(51) } }), I, 400, /more than 50/],
    [() => add('hall'), I, 400, /plant-3 of the same hierarchy/],
    [() => add('plant'), I, 400, /same hierarchy/],
    [() => add('nobody'), N, 404, /nobody/],
    [() => add('hall', 'nobody'), N, 404, /nobody/],
    [() => iot.send(new aws.AddThingToThingGroupCommand({ thingName: 'member' })), I, 400, /thingGroupName or thingGroupArn/],
    [() => iot.send(new aws.AddThingToThingGroupCommand({ thingName: 'member', thingGroupName: 'hall', thingGroupArn: plant.thingGroupArn })), I, 400, /same/],
    [() => iot.send(new aws.AddThingToThingGroupCommand({ thingArn: 'arn:aws:iot:x:1:thing/y', thingGroupName: 'hall' })), N, 404, /thing\/y/],
    [() => iot.send(new aws.DeleteThingGroupCommand({ thingGroupName: 'plant' })), I, 400, /child groups/],
    [() => iot.send(new aws.DeleteThingGroupCommand({ thingGroupName: 'hall', expectedVersion: 9 })), W, 409, /9/],
    [() => iot.send(new aws.DescribeThingGroupCommand({ thingGroupName: 'nobody' })), N, 404, /nobody/],
    [() => iot.send(new aws.ListThingsInThingGroupCommand({ thingGroupName: 'nobody' })), N, 404, /nobody/],
    [() => iot.send(new aws.ListThingGroupsForThingCommand({ thingName: 'nobody' })), N, 404, /nobody/],
    [() => iot.send(new aws.ListThingGroupsCommand({ parentGroup: 'nobody' })), N, 404, /nobody/],
    [() => iot.send(new aws.UpdateThingGroupCommand({ thingGroupName: 'plant', thingGroupProperties: {}, expectedVersion: 5 })), W, 409, /5/]
  ])
  for (let n = 0; n < 10; n++) await create(`club-${n}`)
  for (let n = 0; n < 9; n++) await iot.send(new aws.AddThingToThingGroupCommand({ thingGroupArn: plant.thingGroupArn?.replace('plant', `club-${n}`), thingArn }))
  await refuse(t, [[() => add('club-9'), I, 400, /more than 10/]])

  const names = (groups: aws.GroupNameAndArn[] = []): string[] => groups.map(({ groupName }) => groupName ?? '')
  const seen: string[] = []
  for await (const { thingGroups } of aws.paginateListThingGroupsForThing({ client: iot, pageSize: 4 }, { thingName: 'member' })) seen.push(...names(thingGroups))
  t.same(seen, [...Array.from({ length: 9 }, (_, n) => `club-${n}`), 'plant-3'])
  t.same(names((await iot.send(new aws.ListThingGroupsCommand({ namePrefixFilter: 'plant' }))).thingGroups).length, 7)
  t.same(names((await iot.send(new aws.ListThingGroupsCommand({ parentGroup: 'plant', recursive: false }))).thingGroups), ['hall', 'plant-2'])
  t.same(names((await iot.send(new aws.ListThingGroupsCommand({ parentGroup: 'plant-5' }))).thingGroups), ['plant-6', 'plant-7'])
  t.same(names((await iot.send(new aws.ListThingGroupsCommand({ namePrefixFilter: 'plant', recursive: false }))).thingGroups), ['plant'])
  t.same((await iot.send(new aws.ListThingsInThingGroupCommand({ thingGroupName: 'plant' }))).things, [])
  t.same((await iot.send(new aws.ListThingsInThingGroupCommand({ thingGroupName: 'plant', recursive: true }))).things, ['member'])

  t.equal((await iot.send(new aws.UpdateThingGroupCommand({ thingGroupName: 'plant', thingGroupProperties: { attributePayload: { attributes: { c: 'd' }, merge: true } } }))).version, 2)
  t.match(await iot.send(new aws.DescribeThingGroupCommand({ thingGroupName: 'plant' })), { thingGroupProperties: { thingGroupDescription: 'all of it', attributePayload: { attributes: { a: 'b', c: 'd' } } } })
  for (let twice = 0; twice < 2; twice++) await iot.send(new aws.RemoveThingFromThingGroupCommand({ thingGroupName: 'plant-3', thingName: 'member' }))
  await add('hall')
  for (let twice = 0; twice < 2; twice++) await iot.send(new aws.DeleteThingGroupCommand({ thingGroupName: 'hall' }))
  t.notOk(names((await iot.send(new aws.ListThingGroupsForThingCommand({ thingName: 'member' }))).thingGroups).includes('hall'))
})

await t.test('exclusive and other attachments are told apart', async t => {
  const csr = opensslCsr(P256).csr
  const arns: string[] = []
  for (let n = 0; n < 2; n++) arns.push((await iot.send(new aws.CreateCertificateFromCsrCommand({ certificateSigningRequest: csr }))).certificateArn ?? '')
  const [own = '', shared = ''] = arns
  await iot.send(new aws.CreateThingCommand({ thingName: 'keeper' }))
  await iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'keeper', principal: own, thingPrincipalType: 'EXCLUSIVE_THING' }))
  await iot.send(new aws.AttachThingPrincipalCommand({ thingName: 'keeper', principal: shared }))
  const principals = async (thingPrincipalType?: aws.ThingPrincipalType) =>
    (await iot.send(new aws.ListThingPrincipalsV2Command({ thingName: 'keeper', thingPrincipalType }))).thingPrincipalObjects
  t.same(await principals('EXCLUSIVE_THING'), [{ principal: own, thingPrincipalType: 'EXCLUSIVE_THING' }])
  t.same(await principals('NON_EXCLUSIVE_THING'), [{ principal: shared, thingPrincipalType: 'NON_EXCLUSIVE_THING' }])
  t.equal((await principals())?.length, 2)
  const things = async (thingPrincipalType?: aws.ThingPrincipalType) =>
    (await iot.send(new aws.ListPrincipalThingsV2Command({ principal: own, thingPrincipalType }))).principalThingObjects
  t.same(await things(), [{ thingName: 'keeper', thingPrincipalType: 'EXCLUSIVE_THING' }])
  t.same(await things('NON_EXCLUSIVE_THING'), [])
  await refuse(t, [
    [() => iot.send(new aws.ListThingPrincipalsV2Command({ thingName: 'gone' })), N, 404, /gone/],
    [() => iot.send(new aws.ListThingPrincipalsV2Command({ thingName: 'keeper', thingPrincipalType: 'ANY' as 'EXCLUSIVE_THING' })), I, 400, /enum/],
    [() => iot.send(new aws.ListPrincipalThingsV2Command({ principal: own.replace(/.$/, own.endsWith('0') ? '1' : '0') })), N, 404, /not found/]
  ])
})
