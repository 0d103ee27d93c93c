// Follows a stream with `@microsoft/fetch-event-source` until its `end`.
// The library is written for pages; Node lacks three of their globals.
import { print } from './print.mjs'

globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} }
globalThis.window ??= globalThis
const { fetchEventSource } = await import('@microsoft/fetch-event-source')

const stop = new AbortController()
await fetchEventSource(process.argv[2], {
  signal: stop.signal,
  openWhenHidden: true,
  onmessage({ event, id, data }) {
    print({ event, id, data })
    if (event === 'end') stop.abort()
  },
})
