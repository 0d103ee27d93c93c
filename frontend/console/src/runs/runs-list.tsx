/** All runs: find one, filter by how they are, open one. */
import type { BackendChoice, RunSummary } from '@runcast/client'
import { useMemo, useRef, useState, type SubmitEvent, type MouseEvent } from 'react'
import { Virtualizer } from 'virtua'
import { go, isRunId, writeAddress, type Address } from '../model/address'
import { useConfig } from '../model/broker'
import { count, span, statusTone } from '../model/words'
import { SearchIcon } from '../ui/icons'
import { useNow } from '../ui/use-now'
import { useRuns } from './use-runs'

type Group = 'all' | 'live' | 'succeeded' | 'failed' | 'other'

const GROUPS: readonly [Group, string][] = [
  ['all', 'All'],
  ['live', 'Live'],
  ['succeeded', 'Succeeded'],
  ['failed', 'Failed'],
  ['other', 'Other'],
]

function groupOf({ status, ended }: RunSummary): Group {
  if (!ended) return 'live'
  const tone = statusTone(status, ended)
  return tone === 'good' ? 'succeeded' : tone === 'bad' ? 'failed' : 'other'
}

type Shown = Pick<Address, 'run' | 'backend'>

/** Returns how an address names the run's backend: not at all if it is the default. */
function choiceOf({ backend }: RunSummary, byDefault: string | undefined): BackendChoice | null {
  const named = backend === 'redis' || backend === 'kubectl'
  return named && byDefault !== undefined && backend !== byDefault ? backend : null
}

export function RunsList({ current }: { current: Shown }) {
  const byDefault = useConfig()?.default_backend
  const { runs, error, loaded, more } = useRuns()
  const [text, setText] = useState('')
  const [group, setGroup] = useState<Group>('all')
  const input = useRef<HTMLInputElement>(null)
  const scroller = useRef<HTMLDivElement>(null)
  const found = useMemo(() => {
    const needle = text.trim().toLowerCase()
    return runs.filter(
      ({ run_id, status }) =>
        run_id.toLowerCase().includes(needle) || status?.toLowerCase().includes(needle),
    )
  }, [runs, text])
  const counts = useMemo(() => {
    const sums: Record<Group, number> = { all: 0, live: 0, succeeded: 0, failed: 0, other: 0 }
    for (const run of found) {
      sums.all += 1
      sums[groupOf(run)] += 1
    }
    return sums
  }, [found])
  const shown = group === 'all' ? found : found.filter((run) => groupOf(run) === group)

  const onSubmit = (event: SubmitEvent) => {
    event.preventDefault()
    // From here on keys are for the run.
    input.current?.blur()
    const typed = text.trim()
    // What was typed wins if it may be a run: also one that nobody follows yet.
    const first = shown[0]
    if (isRunId(typed)) open({ run: typed, backend: null })
    else if (first) open({ run: first.run_id, backend: choiceOf(first, byDefault) })
  }
  return (
    <nav className="runs" aria-label="Runs">
      <form className="field runs-find" role="search" onSubmit={onSubmit}>
        <SearchIcon />
        <input
          ref={input}
          aria-label="Find or open a run"
          placeholder="Find or open a run"
          value={text}
          maxLength={128}
          spellCheck={false}
          autoComplete="off"
          autoCapitalize="off"
          autoFocus={current.run === null}
          data-shortcut="runs"
          onChange={(event) => setText(event.target.value)}
        />
        {text.trim() !== '' && isRunId(text.trim()) && <kbd title="Enter opens this run">↵</kbd>}
      </form>
      <div className="chips" role="group" aria-label="Which runs">
        {GROUPS.map(([name, words]) => (
          <button
            key={name}
            className="chip"
            aria-pressed={group === name}
            hidden={counts[name] === 0 && group !== name && name !== 'all'}
            onClick={() => setGroup(name)}
          >
            {words} <span className="chip-count">{count(counts[name])}</span>
          </button>
        ))}
      </div>
      {error !== null && (
        <p className="notice bad" role="alert">
          {error}
        </p>
      )}
      <div className="runs-scroller" ref={scroller}>
        {shown.length === 0 ? (
          <Empty loaded={loaded} any={runs.length > 0} text={text.trim()} />
        ) : (
          <Virtualizer scrollRef={scroller} data={shown} itemSize={58}>
            {(run) => (
              <RunItem
                key={`${run.run_id} ${run.backend ?? ''}`}
                run={run}
                backend={choiceOf(run, byDefault)}
                current={current}
              />
            )}
          </Virtualizer>
        )}
        {more && <p className="faint runs-more">Only the first 10,000 runs are listed.</p>}
      </div>
    </nav>
  )
}

const open = (shown: Shown) => go({ ...shown, event: null })

interface RunItemProps {
  run: RunSummary
  backend: BackendChoice | null
  current: Shown
}

function RunItem({ run, backend: choice, current }: RunItemProps) {
  const now = useNow()
  const onClick = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return
    event.preventDefault()
    open({ run: run.run_id, backend: choice })
  }
  const { run_id, status, ended, clients, backend, last_event_ts } = run
  const tone = statusTone(status, ended)
  const isCurrent =
    run_id === current.run && (current.backend === choice || current.backend === backend)
  return (
    <a
      className="run-item"
      href={writeAddress({ run: run_id, backend: choice, event: null })}
      aria-current={isCurrent ? 'page' : undefined}
      onClick={onClick}
    >
      <span className={`dot ${tone}`} data-live={!ended || undefined} aria-hidden="true" />
      <span className="run-id">{run_id}</span>
      <time className="run-when faint" dateTime={last_event_ts ?? undefined}>
        {last_event_ts === null ? '' : span(now - Date.parse(last_event_ts))}
      </time>
      <span className="run-about faint">
        <span className={`word ${tone}`}>{status ?? 'no status'}</span>
        {backend !== null && <span>{backend}</span>}
        {clients > 0 && <span>{count(clients)} watching</span>}
      </span>
    </a>
  )
}

function Empty({ loaded, any, text }: { loaded: boolean; any: boolean; text: string }) {
  if (!loaded) return <p className="empty faint">Looking for runs…</p>
  if (any || text !== '') {
    return (
      <p className="empty faint">
        No such run here.
        {isRunId(text) && <> Press Enter to follow “{text}” all the same: it may begin later.</>}
      </p>
    )
  }
  return (
    <p className="empty faint">
      No runs yet. They appear as soon as something is published, or somebody watches.
    </p>
  )
}
