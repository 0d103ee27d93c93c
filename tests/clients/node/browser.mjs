// Opens a page of the broker in Chromium and prints what happens there.
//
//   browser.mjs page URL RUN PROFILE          follows RUN on the page at `/`; prints {"text"}
//   browser.mjs event-source URL RUN PROFILE  an EventSource in that page; prints its events,
//                                             and {"closed":true} when it gave up for good
//   browser.mjs streams URL COUNT PROFILE     an EventSource for each of run-0, run-1, …; prints
//                                             {"stream"} at the output of each, then, all being
//                                             open, {"fetched","protocol"} of a request beside them
//
// PROFILE is an empty directory that the caller removes.
import { chromium } from 'playwright-core'
import { EVENTS, print } from './print.mjs'

const [mode, url, run, profile] = process.argv.slice(2)
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: [
    '--headless', '--no-sandbox', '--ignore-certificate-errors', '--disable-gpu', '--disable-quic', '--no-first-run',
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
} else if (mode === 'streams') {
  await page.goto(url)
  await page.evaluate(async (count) => {
    const opened = Array.from({ length: count }, (_, stream) => new Promise((resolve) => {
      const source = new EventSource(`/api/v1/runs/run-${stream}/stream`)
      source.onopen = resolve
      source.addEventListener('output', () => window.tell({ stream }))
    }))
    await Promise.all(opened)
    const answer = await fetch('/api/v1/config', { cache: 'no-store' })
    await answer.text()
    const entries = performance.getEntriesByName(answer.url)
    const protocol = entries.at(-1)?.nextHopProtocol
    window.tell({ fetched: answer.status, protocol })
  }, Number(run))
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
