// /docs: a page whose every file is there and allowed by its content security policy, and nothing when it is turned off.
import t from 'tap'
import { isProblem } from '../fixtures/problems.ts'
import { startService } from '../fixtures/service.ts'

await t.test('/docs', async t => {
  const service = await startService({ RATE_LIMIT_ADDRESS_MAX: '30' })
  t.teardown(() => service.close())
  const ask = (url: string, method: 'GET' | 'HEAD' | 'POST' = 'GET') => service.app.service.inject({ url, method })

  for (const url of ['/docs', '/docs/']) {
    const { statusCode, headers, body } = await ask(url)
    t.match({ statusCode, type: headers['content-type'] }, { statusCode: 200, type: /^text\/html/ }, url)
    t.match(headers['content-security-policy'], /^default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';/)
    t.notMatch(headers['content-security-policy'], /unsafe|\*|http/)
    t.notMatch(body, /<script(?![^>]* src=)|<style|\son\w+=|https?:\/\//, 'nothing inline, nothing from elsewhere')
    const named = [...body.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, name = '']) => new URL(name, `http://localhost${url}`).pathname)
    t.ok(named.length >= 6)
    for (const asset of named) {
      const answer = await ask(asset)
      const type = { css: /^text\/css/, js: /^(text|application)\/javascript/, png: /^image\/png/ }[asset.split('.').at(-1) as 'css']
      t.match({ statusCode: answer.statusCode, type: answer.headers['content-type'], sniff: answer.headers['x-content-type-options'] },
        { statusCode: 200, type, sniff: 'nosniff' }, asset)
    }
  }
  t.strictSame((await ask('/docs/json')).json(), (await ask('/openapi.json')).json(), 'the page reads the same document')
  t.match(await ask('/docs', 'HEAD'), { statusCode: 200, body: '' })
  for (const url of ['/docs', '/docs/', '/openapi.json']) t.equal((await ask(url, 'POST')).headers['allow'], 'GET, HEAD', `POST ${url}`)
  isProblem(t, await ask('/docs/static/..%2f..%2fpackage.json'), 'not-found')
  t.match((await ask('/openapi.json')).headers['content-security-policy'], /^default-src 'none';frame-ancestors 'none'$/, 'elsewhere there is no page')
  for (let i = 0; i < 30; i++) await ask('/docs')
  isProblem(t, await ask('/docs'), 'rate-limited', {}, 'an address may not ask for ever')
})

await t.test('API_DOCS=false', async t => {
  const service = await startService({ API_DOCS: 'false' })
  t.teardown(() => service.close())
  for (const url of ['/docs', '/docs/', '/docs/json', '/docs/static/swagger-ui.css', '/openapi.json']) {
    isProblem(t, await service.app.service.inject(url), 'not-found', {}, url)
  }
})
