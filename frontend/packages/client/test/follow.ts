/** A stream of a fake broker, on a stopped clock, for each test. */
import { afterEach, beforeEach, vi } from 'vitest'
import { AgentStream, type AgentStreamOptions, type StreamEvent } from '../src/index.js'
import { FakeBroker } from './fake-broker.js'

/** The broker of the test that runs. */
export let broker: FakeBroker
/** Closed after the test. */
export const streams: AgentStream[] = []

beforeEach(() => {
  vi.useFakeTimers()
  // The middle of every range that is drawn from.
  vi.spyOn(Math, 'random').mockReturnValue(0.5)
  broker = new FakeBroker()
})

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close()
  vi.useRealTimers()
})

/** Follows run 42 of it; returns the stream and what it tells. */
export function follow(options: AgentStreamOptions = {}) {
  const stream = new AgentStream('42', {
    baseUrl: 'http://broker',
    backend: 'redis',
    log: false,
    ...options,
    fetch: broker.fetch,
  })
  streams.push(stream)
  const events: StreamEvent[] = []
  const states: string[] = []
  stream.on('event', (event) => events.push(event))
  stream.on('state', ({ connection }) => {
    if (states.at(-1) !== connection) states.push(connection)
  })
  stream.start()
  return { stream, events, states }
}

export const kinds = (events: StreamEvent[]) => events.map(({ type }) => type)
export const ids = (events: StreamEvent[]) =>
  events.flatMap((each) => ('id' in each ? [each.id] : []))
