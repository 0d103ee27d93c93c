// Opens a page of the broker in Chromium and prints what happens there.
//
//   browser.mjs page URL RUN PROFILE          follows RUN on the page at `/`; prints {"text"}
//   browser.mjs event-source URL RUN PROFILE  an EventSource in that page; prints its events,
//                                             and {"closed":true} when it gave up for good
//
// PROFILE is an empty directory that the caller removes.
import { chromium } from 'playwright-core'
import { EVENTS, print } from './print.mjs'

const [mode, url, run, profile] = process.argv.slice(2)
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
})
process.on('SIGTERM', async () => {
  await browser.close()
  process.exit(0)
})

const page = await browser.newPage()
await page.exposeFunction('tell', print)

if (mode === 'page') {
  await page.goto(url)
  await page.locator('input').first().fill(run)
  await page.locator('input').first().press('Enter')
  await page.evaluate(() => {
    let last = ''
    const look = () => {
      const text = document.body.innerText
      if (text !== last) window.tell({ text: (last = text) })
    }
    new MutationObserver(look).observe(document.body, {
      childList: true, subtree: true, characterData: true,
    })
    look()
  })
} else {
  await page.goto(url)
  await page.evaluate(([run, events]) => {
    const source = new EventSource(`/api/v1/runs/${run}/stream`)
    for (const event of [...events, 'message']) {
      source.addEventListener(event, ({ data, lastEventId }) => {
        window.tell({ event, id: lastEventId, data })
      })
    }
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) window.tell({ closed: true })
    }
  }, [run, EVENTS])
}
