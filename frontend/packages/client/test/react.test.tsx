// @vitest-environment jsdom
/** The hook and the badge, in React's strict mode. */
import { act, StrictMode, type ReactNode } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { renderToString } from 'react-dom/server'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import {
  badgeLabel,
  StreamBadge,
  useAgentStream,
  type BadgeState,
  type UseAgentStreamOptions,
} from '../src/react.js'
import { FakeBroker, frame, output, settle } from './fake-broker.js'

let broker: FakeBroker
let root: Root
let container: HTMLElement

beforeEach(() => {
  vi.stubGlobal('IS_REACT_ACT_ENVIRONMENT', true)
  vi.useFakeTimers()
  broker = new FakeBroker()
  container = document.createElement('div')
  root = createRoot(container)
})

afterEach(async () => {
  await render(null)
  vi.useRealTimers()
})

async function render(node: ReactNode) {
  await act(async () => {
    root.render(<StrictMode>{node}</StrictMode>)
    await settle()
  })
  // Effects have run; what they left for a moment later has not.
  await act(settle)
}

/** Lets the next frame come. */
async function nextFrame() {
  await act(() => vi.advanceTimersByTimeAsync(20))
}

type View = ReturnType<typeof useAgentStream>

/** Follows `run`, and shows what it got. */
function Probe(props: { run: string | null; options?: UseAgentStreamOptions; seen: View[] }) {
  const view = useAgentStream(props.run, {
    baseUrl: 'http://broker',
    backend: 'redis',
    log: false,
    // New ones with each render, as people write them.
    fetch: (...args) => broker.fetch(...args),
    headers: () => ({ 'X-Run': props.run ?? '' }),
    kinds: ['output', 'status'],
    ...props.options,
  })
  props.seen.push(view)
  return (
    <p>
      <StreamBadge stream={view} />
      {view.events.map(({ id }) => id).join()}
    </p>
  )
}

const last = (seen: View[]): View => {
  const view = seen.at(-1)
  if (!view) throw new Error('nothing was rendered')
  return view
}

describe('useAgentStream', () => {
  test('opens one connection, and renders once for all that came in a frame', async () => {
    const seen: View[] = []
    await render(<Probe run="42" seen={seen} />)
    expect(broker.asked).toHaveLength(1)
    expect(broker.last.headers['X-Run']).toBe('42')
    const answer = await broker.open()
    await nextFrame()
    expect(last(seen).connection).toBe('open')
    const renders = seen.length
    for (let n = 0; n < 500; n += 1) void answer.send(output(n))
    await settle()
    await nextFrame()
    // Strict mode renders twice.
    expect(seen.length - renders).toBe(2)
    expect(last(seen).events).toHaveLength(500)
    expect(broker.asked).toHaveLength(1)
  })

  test('keeps the last events, and counts the others', async () => {
    const seen: View[] = []
    await render(<Probe run="42" options={{ maxEvents: 10 }} seen={seen} />)
    const answer = await broker.open()
    for (let n = 1; n <= 95; n += 1) void answer.send(output(n))
    await answer.send(
      frame('gap', { after: null, before: null, missed: 2, reason: 'trimmed' }) + output(96),
    )
    await nextFrame()
    const { events, total, dropped, gaps } = last(seen)
    expect(events.map(({ id }) => id)).toEqual(
      Array.from({ length: 10 }, (_, i) => `1-${87 + i}-0`),
    )
    expect({ total, dropped }).toEqual({ total: 96, dropped: 86 })
    expect(gaps).toMatchObject([{ type: 'gap', missed: 2, position: 95 }])
    expect(events[(gaps[0]?.position ?? 0) - dropped]?.id).toBe('1-96-0')
  })

  test('follows another run, and closes the connection of the first', async () => {
    const seen: View[] = []
    await render(<Probe run="42" seen={seen} />)
    const answer = await broker.open()
    await answer.send(output(1))
    await nextFrame()
    await render(<Probe run="43" seen={seen} />)
    expect(last(seen).events).toEqual([])
    await nextFrame()
    expect(answer.cancelled).toBe(true)
    expect(broker.asked.map(({ path }) => path)).toEqual([
      '/api/v1/runs/42/stream/redis?kinds=output%2Cstatus',
      '/api/v1/runs/43/stream/redis?kinds=output%2Cstatus',
    ])
    await render(<Probe run={null} seen={seen} />)
    expect(broker.last.signal?.aborted).toBe(true)
    expect(last(seen).connection).toBe('idle')
  })

  test('is shared by components that follow the same', async () => {
    const [a, b]: [View[], View[]] = [[], []]
    await render([<Probe key="a" run="42" seen={a} />, <Probe key="b" run="42" seen={b} />])
    expect(broker.asked).toHaveLength(1)
    const answer = await broker.open()
    await answer.send(output(1))
    await nextFrame()
    expect(last(a).events).toBe(last(b).events)
    await render([<Probe key="b" run="42" seen={b} />])
    expect(answer.cancelled).toBe(false)
    // One that comes later has what was there.
    await render([<Probe key="b" run="42" seen={b} />, <Probe key="c" run="42" seen={a} />])
    expect(last(a).events.map(({ id }) => id)).toEqual(['1-1-0'])
    await render(null)
    expect(answer.cancelled).toBe(true)
  })

  test('clears what one component shows, and no other', async () => {
    const [a, b]: [View[], View[]] = [[], []]
    await render([<Probe key="a" run="42" seen={a} />, <Probe key="b" run="42" seen={b} />])
    const answer = await broker.open()
    await answer.send(output(1) + output(2))
    await nextFrame()
    act(() => last(a).clear())
    expect(last(a)).toMatchObject({ events: [], total: 2, dropped: 2 })
    expect(last(b).events).toHaveLength(2)
    await answer.send(output(3))
    await nextFrame()
    expect(last(a).events.map(({ id }) => id)).toEqual(['1-3-0'])
    expect(last(b).events).toHaveLength(3)
  })

  test('pauses, resumes, and reconnects; the functions stay the same', async () => {
    const seen: View[] = []
    await render(<Probe run="42" seen={seen} />)
    await (await broker.open()).send(output(1))
    await nextFrame()
    const { pause, resume, reconnect, events } = last(seen)
    act(() => pause())
    await nextFrame()
    expect(container.textContent).toBe('Paused1-1-0')
    // Who memoises on the events does no work for the badge.
    expect(last(seen).events).toBe(events)
    act(() => resume())
    await nextFrame()
    expect(broker.last.headers['Last-Event-ID']).toBe('1-1-0')
    await broker.open()
    act(() => reconnect())
    await nextFrame()
    expect(broker.asked).toHaveLength(3)
    expect(last(seen)).toMatchObject({ pause, resume, reconnect })
  })

  test('follows nothing while it is not enabled', async () => {
    const seen: View[] = []
    await render(<Probe run="42" options={{ enabled: false }} seen={seen} />)
    await nextFrame()
    expect(broker.asked).toHaveLength(0)
    await render(<Probe run="42" options={{ enabled: true }} seen={seen} />)
    expect(broker.asked).toHaveLength(1)
  })

  test('renders only when what is selected changes', async () => {
    let renders = 0
    function Count() {
      renders += 1
      const { selected } = useAgentStream('42', {
        baseUrl: 'http://broker',
        backend: 'redis',
        log: false,
        fetch: broker.fetch,
        // A new object each time: `isEqual` says that it is the same.
        select: ({ status, gaps }) => ({ status, gaps: gaps.length }),
        isEqual: (a, b) => a.status === b.status && a.gaps === b.gaps,
      })
      return <>{`${selected.status ?? '-'} ${selected.gaps}`}</>
    }
    await render(<Count />)
    const answer = await broker.open()
    await nextFrame()
    const before = renders
    for (let n = 0; n < 20; n += 1) {
      await answer.send(output(n))
      await nextFrame()
    }
    expect(renders).toBe(before)
    await answer.send(output(99, 'status', { status: 'training' }))
    await nextFrame()
    expect(container.textContent).toBe('training 0')
    expect(renders).toBe(before + 2)
  })

  test('says what is wrong with its options', async () => {
    const seen: View[] = []
    const options = { backend: 'kafka' } as unknown as UseAgentStreamOptions
    await render(<Probe run="42" options={options} seen={seen} />)
    await nextFrame()
    expect(last(seen)).toMatchObject({ connection: 'failed', error: { code: 'configuration' } })
  })

  test('renders on a server without a connection', () => {
    const seen: View[] = []
    const html = renderToString(<Probe run="42" seen={seen} />)
    expect(html).toContain('Not connected')
    expect(broker.asked).toHaveLength(0)
  })

  test('shows all that came although no frame is drawn, as in a hidden tab', async () => {
    vi.stubGlobal('requestAnimationFrame', () => 1)
    const seen: View[] = []
    await render(<Probe run="42" seen={seen} />)
    await (await broker.open()).send(output(1))
    await act(() => vi.advanceTimersByTimeAsync(250))
    expect(last(seen).events).toHaveLength(1)
  })
})

describe('StreamBadge', () => {
  const base: BadgeState = { connection: 'open', backend: 'redis', attempt: 0, attemptsMax: 10 }

  test.each<[Partial<BadgeState>, string]>([
    [{}, 'Redis Streaming'],
    [{ backend: 'kubectl' }, 'Kubectl Streaming'],
    [{ backend: 'embedded' }, 'Embedded Streaming'],
    [{ connection: 'reconnecting', attempt: 3 }, 'Reconnecting (3/10)'],
    [{ connection: 'reconnecting', attempt: 0 }, 'Reconnecting'],
    [{ connection: 'ended', status: 'completed' }, 'Ended: completed'],
    [
      { connection: 'ended', end: { type: 'end', id: 'x', status: 'failed', events: null } },
      'Ended: failed',
    ],
    [{ connection: 'ended' }, 'Ended'],
    [{ connection: 'offline' }, 'Offline'],
    [{ connection: 'connecting' }, 'Connecting'],
    [{ connection: 'idle' }, 'Not connected'],
    [{ connection: 'paused' }, 'Paused'],
    [{ connection: 'failed' }, 'Disconnected'],
    [{ connection: 'closed' }, 'Closed'],
  ])('%j says %j', (change, words) => {
    expect(badgeLabel({ ...base, ...change })).toBe(words)
  })

  test('has a role, and can be styled and worded anew', async () => {
    await render(
      <StreamBadge
        stream={base}
        className="mine"
        unstyled
        label={({ backend }) => `von ${backend ?? ''}`}
      />,
    )
    const badge = container.firstElementChild
    expect(badge?.outerHTML).toBe(
      '<span role="status" class="mine" data-tone="live" data-connection="open" ' +
        'data-backend="redis">von redis</span>',
    )
  })
})
