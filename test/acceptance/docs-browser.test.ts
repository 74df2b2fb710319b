// /docs as a person opens it: in a real browser, over HTTPS and plain HTTP, without one complaint in its console.
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Browser, type Page, chromium } from 'playwright-core'
import t, { type Test } from 'tap'
import { wholeOnly } from '../fixtures/whole-only.ts'
import { startLocalAws, startProduction, startService } from './service-process.ts'

t.setTimeout(900_000)

const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'].map(name => `/usr/bin/${name}`)
/** Where to leave screenshots for people to look at; none without it. */
const SCREENSHOTS = process.env['SCREENSHOTS']

const executablePath = BROWSERS.find(existsSync)
if (!executablePath) {
  await t.test('/docs in a browser', { skip: `there is no browser: none of ${BROWSERS.join(', ')}` }, async () => {})
} else {
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
  t.teardown(() => browser.close())

  await t.test('/docs over HTTPS', async t => {
    const { serviceUrl } = await startService(t, { name: 'dynalite' })
    t.match(serviceUrl, /^https:/)
    await read(t, browser, serviceUrl, 'https')
  })

  await t.test('/docs over plain HTTP', { skip: wholeOnly }, async t => {
    const local = await startLocalAws(t, { name: 'dynalite' })
    const { serviceUrl } = await startProduction(t, local, { TOKEN_PEPPER: randomBytes(32).toString('base64') })
    t.match(serviceUrl, /^http:/)
    await read(t, browser, serviceUrl, 'http')
  })
}

async function read (t: Test, browser: Browser, serviceUrl: string, name: string): Promise<void> {
  const page = await browser.newPage({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 2400 } })
  t.teardown(() => page.close())
  const complaints: string[] = []
  const refused: string[] = []
  page.on('console', message => { if (['error', 'warning'].includes(message.type())) complaints.push(message.text()) })
  page.on('pageerror', error => complaints.push(String(error)))
  page.on('requestfailed', request => complaints.push(`${request.url()} failed: ${request.failure()?.errorText}`))
  page.on('request', request => { if (!/^data:/.test(request.url()) && new URL(request.url()).origin !== serviceUrl) complaints.push(`asks ${request.url()}`) })
  page.on('response', response => { if (response.status() >= 400) refused.push(`${response.status()} ${new URL(response.url()).pathname}`) })

  await page.goto(`${serviceUrl}/docs`)
  await page.waitForSelector('.opblock')
  t.equal(await page.title(), 'Certificate Vending Machine')
  const { paths } = await (await page.request.get(`${serviceUrl}/openapi.json`)).json() as { paths: Record<string, object> }
  t.equal(await page.locator('.opblock').count(), Object.values(paths).flatMap(path => Object.keys(path)).length, 'every operation is listed')
  await screenshot(page, name)

  const operation = page.locator('#operations-vending-vendCertificate')
  await operation.locator('.opblock-summary-control').click()
  await operation.locator('.responses-table').first().waitFor()
  t.match(await operation.innerText(), /BEGIN CERTIFICATE REQUEST[^]*byte-identical|byte-identical[^]*BEGIN CERTIFICATE REQUEST/, 'what it does, with its example')
  t.match(await operation.innerText(), /device-not-authorized/, 'and how it fails')
  await screenshot(page, `${name}-operation`)

  t.strictSame([complaints, refused], [[], []], 'no complaint, nothing refused by the content security policy')

  await operation.getByRole('button', { name: 'Try it out' }).click()
  await operation.getByRole('button', { name: 'Execute' }).click()
  await operation.locator('.live-responses-table .response').waitFor()
  t.match(await operation.locator('.live-responses-table').first().innerText(), /"code": "device-not-authorized"/, 'it can be tried from there')
  await screenshot(page, `${name}-tried`)
  t.strictSame(refused, ['401 /v1/certificates'])
  t.strictSame(complaints.filter(text => !/status of 401/.test(text)), [])
}

async function screenshot (page: Page, name: string): Promise<void> {
  if (SCREENSHOTS) await page.screenshot({ path: join(SCREENSHOTS, `docs-${name}.png`) })
}
