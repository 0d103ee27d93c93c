// Follows a stream with npm `eventsource` until its `end`.
import { EventSource } from 'eventsource'
import { EVENTS, print } from './print.mjs'

const source = new EventSource(process.argv[2])
// The timer of a reconnection does not keep Node running: this one does.
const running = setInterval(() => {}, 60_000)
// Events without a name would come as `message`: there must be none.
for (const event of [...EVENTS, 'message']) {
  source.addEventListener(event, ({ data, lastEventId }) => {
    print({ event, id: lastEventId, data })
    if (event === 'end') {
      source.close()
      clearInterval(running)
    }
  })
}
