/** One run as it happens. */
import type { BackendChoice, Connection } from '@runcast/client'
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react'
import { go, writeAddress, type Address } from '../model/address'
import { ALL, type RowFilter } from '../model/run-log'
import { RunSession } from '../model/run-session'
import type { EventRow, Row } from '../model/rows'
import { Search } from '../model/search'
import { count, events } from '../model/words'
import { TailIcon } from '../ui/icons'
import { usePreference } from '../ui/preference'
import { useShortcuts } from '../ui/use-shortcuts'
import type { RowLook } from './log-row'
import { LogView, type LogViewHandle } from './log-view'
import { Quiet } from './quiet'
import { RunHead } from './run-head'
import { copy, download, jsonLine, textLine } from './save'
import { Timeline } from './timeline'
import { Toolbar } from './toolbar'
import { useEventLink } from './use-event-link'

interface RunPageProps {
  run: string
  backend: BackendChoice | null
  event: string | null
  onSaid: (words: string) => void
}

function useSession(run: string, backend: BackendChoice | null): RunSession {
  const [session] = useState(() => new RunSession(run, backend))
  useEffect(() => {
    session.open()
    return () => session.close()
  }, [session])
  return session
}

export function RunPage({ run, backend, event, onSaid }: RunPageProps) {
  const session = useSession(run, backend)
  const { log } = session
  const state = useSyncExternalStore(session.subscribe, session.getState)
  useSyncExternalStore(log.subscribe, log.getVersion)

  const view = useRef<LogViewHandle>(null)
  const searchInput = useRef<HTMLInputElement>(null)
  const [following, setFollowing] = useState(event === null)
  const [current, setCurrent] = useState<number | null>(null)
  const [quiet, setQuiet] = useState(false)
  const [query, setQuery] = useState('')
  const [filter, setFilter] = useState<RowFilter>(ALL)
  const [times, setTimes] = usePreference('times', ['clock', 'elapsed', 'none'])
  const [wrap, setWrap] = usePreference('wrap', ['on', 'off'])

  const search = useMemo(() => new Search(log, query), [log, query])
  useSyncExternalStore(search.subscribe, search.getVersion)
  const isMatch = useCallback((seq: number) => search.has(seq), [search])

  const showSource = log.sources.size > 1
  const since = log.firstTs ?? 0
  const look = useMemo<RowLook>(
    () => ({ times, since, needle: query.toLowerCase(), showSource }),
    [times, since, query, showSource],
  )

  const addressOf = useCallback(
    (id: string | null): Address => ({ run, backend, event: id }),
    [run, backend],
  )
  const hrefOf = useCallback((row: EventRow) => writeAddress(addressOf(row.id)), [addressOf])
  const show = useCallback((seq: number) => view.current?.show(seq), [])
  const linked = useEventLink(log, event, state.connection, show)
  const link = (row: EventRow) => {
    go(addressOf(row.id))
    setCurrent(row.seq)
    setFollowing(false)
    const url = new URL(hrefOf(row), location.href).href
    void copy(url).then((done) => onSaid(done ? 'Link copied' : 'Link is in the address bar'))
  }

  const step = (direction: 1 | -1) => {
    const next = search.next(current, direction)
    if (next !== undefined) show(next)
  }
  const onFilter = (next: RowFilter) => {
    setFilter(next)
    log.setFilter(next)
  }
  const follow = () => {
    setFollowing(true)
    if (event !== null) go(addressOf(null))
  }
  useShortcuts({
    '/': () => {
      // Firefox does not focus what it selects in.
      searchInput.current?.focus()
      searchInput.current?.select()
    },
    n: () => step(1),
    N: () => step(-1),
    f: () => (following ? setFollowing(false) : follow()),
    w: () => setWrap(wrap === 'on' ? 'off' : 'on'),
    p: () => (state.connection === 'paused' ? session.resume() : session.pause()),
  })

  const copyShown = () => {
    const text = log.visible.map(textLine).join('\n')
    const words = `${count(log.visible.length)} lines copied`
    void copy(text).then((done) => onSaid(done ? words : 'The browser does not allow copying'))
  }
  const chosen = (action: (row: Row) => void) => () => {
    const row = current === null ? undefined : log.visible[log.indexOf(current)]
    if (row?.seq !== current || !row) onSaid('Click an event first')
    else action(row)
  }
  const copyRow = (row: Row) => {
    void copy(jsonLine(row)).then((done) => onSaid(done ? 'Event copied' : 'Not allowed here'))
  }
  const linkRow = (row: Row) => {
    if (row.type === 'event') link(row)
    else onSaid('What stands between events has no link')
  }
  return (
    <main className="run">
      <RunHead
        session={session}
        state={state}
        backend={backend}
        onBackend={(next) => go({ run, backend: next, event: null })}
        onBack={() => go({ run: null, backend: null, event: null })}
        quiet={quiet}
        onQuiet={() => setQuiet(!quiet)}
      />
      {quiet && <Quiet runId={run} onClose={() => setQuiet(false)} />}
      {state.error !== null && state.connection !== 'open' && (
        <p className="notice bad" role="alert">
          {state.error.message}
        </p>
      )}
      {linked === 'missing' && (
        <p className="notice" role="status">
          The event of this link is not among those that are kept.
        </p>
      )}
      <Timeline
        statuses={log.statuses}
        overAt={state.connection === 'ended' ? (log.lastTs ?? 0) : null}
        ahead={log.rate.ahead}
        onPick={({ seq }) => show(seq)}
      />
      <Toolbar
        searchRef={searchInput}
        query={query}
        onQuery={setQuery}
        search={search}
        current={current}
        onStep={step}
        onLeave={() => view.current?.focus()}
        filter={filter}
        onFilter={onFilter}
        sources={log.sources}
        times={times}
        onTimes={setTimes}
        wrap={wrap === 'on'}
        onWrap={(on) => setWrap(on ? 'on' : 'off')}
        following={following}
        onFollow={() => (following ? setFollowing(false) : follow())}
        actions={[
          ['Copy what is shown', copyShown],
          ['Copy the chosen event', chosen(copyRow)],
          ['Copy a link to the chosen event', chosen(linkRow)],
          ['Download as text', () => download(`${run}.log`, log.visible, textLine)],
          ['Download as NDJSON', () => download(`${run}.ndjson`, log.visible, jsonLine)],
        ]}
      />
      <div className="log-frame">
        <LogView
          ref={view}
          log={log}
          look={look}
          wrap={wrap === 'on'}
          following={following}
          onFollowing={setFollowing}
          current={current}
          onCurrent={setCurrent}
          isMatch={query === '' ? null : isMatch}
          hrefOf={hrefOf}
          onLink={useStable(link)}
        />
        {log.visible.length === 0 && <Nothing total={log.rows.length} state={state.connection} />}
        {!following && (
          <button className="to-end" onClick={follow}>
            <TailIcon /> Newest
          </button>
        )}
        {log.dropped > 0 && (
          <p className="dropped faint">{events(log.dropped)} at the beginning are let go</p>
        )}
      </div>
    </main>
  )
}

/** Always the same function, which does what the last one given does. */
function useStable<Args extends unknown[]>(action: (...args: Args) => void) {
  const latest = useRef(action)
  useEffect(() => {
    latest.current = action
  })
  return useCallback((...args: Args) => latest.current(...args), [])
}

/** What stands where no events are, by how the connection is. */
const NOTHING_YET: Partial<Record<Connection, string>> = {
  open: 'No events yet. They appear here as they are published.',
  ended: 'The run is over, and none of its events are kept.',
  paused: 'Paused before the first event.',
  offline: 'This device is offline.',
  failed: 'Not connected.',
  closed: 'Not connected.',
}

function Nothing({ total, state }: { total: number; state: Connection }) {
  if (total > 0) return <p className="empty faint over">Nothing here passes the filter.</p>
  return <p className="empty faint over">{NOTHING_YET[state] ?? 'Connecting…'}</p>
}
