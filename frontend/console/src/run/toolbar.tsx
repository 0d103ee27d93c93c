/** What is shown of a run, and how: search, filters, times, copies. */
import type { EventKind, LogLevel } from '@runcast/client'
import type { KeyboardEvent, Ref } from 'react'
import { ALL, type RowFilter } from '../model/run-log'
import { LEVELS } from '../model/rows'
import { MATCHES_MAX, type Search } from '../model/search'
import { count } from '../model/words'
import { DownIcon, SaveIcon, SearchIcon, TailIcon, UpIcon, WrapIcon } from '../ui/icons'
import { Menu } from '../ui/menu'
import type { Times } from './log-row'

const KINDS: readonly EventKind[] = ['output', 'log', 'status']
const TIMES: readonly [Times, string][] = [
  ['clock', 'Time of day'],
  ['elapsed', 'Since the start'],
  ['none', 'No times'],
]

export interface ToolbarProps {
  searchRef: Ref<HTMLInputElement>
  query: string
  onQuery: (query: string) => void
  search: Search
  current: number | null
  onStep: (step: 1 | -1) => void
  onLeave: () => void
  filter: RowFilter
  onFilter: (filter: RowFilter) => void
  sources: ReadonlySet<string>
  times: Times
  onTimes: (times: Times) => void
  wrap: boolean
  onWrap: (wrap: boolean) => void
  following: boolean
  onFollow: () => void
  actions: readonly (readonly [label: string, action: () => void])[]
}

export function Toolbar(props: ToolbarProps) {
  const { filter, onFilter, sources, times, wrap, following } = props
  const set = (change: Partial<RowFilter>) => {
    const next = { ...filter, ...change }
    const all = next.kinds.size === 3 && next.level === 0 && next.source === null
    onFilter(all ? ALL : next)
  }
  const toggle = (kind: EventKind) => {
    const kinds = new Set(filter.kinds)
    if (!kinds.delete(kind)) kinds.add(kind)
    set({ kinds })
  }
  return (
    <div className="toolbar" role="toolbar" aria-label="What is shown">
      <SearchBox {...props} />
      <div className="chips" role="group" aria-label="Kinds">
        {KINDS.map((kind) => (
          <button
            key={kind}
            className="chip"
            aria-pressed={filter.kinds.has(kind)}
            onClick={() => toggle(kind)}
          >
            {kind}
          </button>
        ))}
      </div>
      <select
        className="select"
        aria-label="Least level of logs"
        title="Least level of logs"
        value={LEVELS[filter.level]}
        onChange={(event) => set({ level: LEVELS.indexOf(event.target.value as LogLevel) })}
      >
        {LEVELS.map((level) => (
          <option key={level} value={level}>
            {level === 'fatal' ? 'fatal' : `${level} +`}
          </option>
        ))}
      </select>
      {(sources.size > 1 || filter.source !== null) && (
        <select
          className="select"
          aria-label="Source"
          title="Source"
          value={filter.source ?? ''}
          onChange={(event) => set({ source: event.target.value || null })}
        >
          <option value="">all sources</option>
          {[...sources].sort().map((source) => (
            <option key={source}>{source}</option>
          ))}
        </select>
      )}
      <select
        className="select"
        aria-label="Times"
        title="Times"
        value={times}
        onChange={(event) => props.onTimes(event.target.value as Times)}
      >
        {TIMES.map(([value, words]) => (
          <option key={value} value={value}>
            {words}
          </option>
        ))}
      </select>
      <span className="tools">
        <button
          className="tool"
          aria-pressed={wrap}
          aria-label="Wrap long lines"
          title="Wrap long lines (w)"
          onClick={() => props.onWrap(!wrap)}
        >
          <WrapIcon />
        </button>
        <Menu label="Copy and save" icon={<SaveIcon />} actions={props.actions} />
        <button
          className="tool follow"
          aria-pressed={following}
          aria-label="Follow"
          title="Follow the newest events (End)"
          onClick={props.onFollow}
        >
          <TailIcon /> <span>Follow</span>
        </button>
      </span>
    </div>
  )
}

function SearchBox({ searchRef, query, onQuery, search, current, onStep, onLeave }: ToolbarProps) {
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter') onStep(event.shiftKey ? -1 : 1)
    else if (event.key !== 'Escape') return
    else if (query !== '') onQuery('')
    else onLeave()
    event.preventDefault()
  }
  const none = search.matches.length === 0
  return (
    <div className="field search" role="search">
      <SearchIcon />
      <input
        ref={searchRef}
        type="search"
        aria-label="Search in the events"
        placeholder="Search"
        value={query}
        spellCheck={false}
        autoComplete="off"
        onChange={(event) => onQuery(event.target.value)}
        onKeyDown={onKeyDown}
      />
      {query !== '' && (
        <>
          <span className="found faint" aria-live="polite">
            {foundWords(search, current)}
          </span>
          <button
            className="quiet-button"
            aria-label="Previous match"
            title="Previous match (Shift+Enter)"
            disabled={none}
            onClick={() => onStep(-1)}
          >
            <UpIcon />
          </button>
          <button
            className="quiet-button"
            aria-label="Next match"
            title="Next match (Enter)"
            disabled={none}
            onClick={() => onStep(1)}
          >
            <DownIcon />
          </button>
        </>
      )}
      {query === '' && <kbd aria-hidden="true">/</kbd>}
    </div>
  )
}

/** Returns `3 / 120`. */
function foundWords({ matches, busy }: Search, current: number | null): string {
  if (matches.length === 0) return busy ? '…' : 'none'
  const many = `${count(matches.length)}${busy || matches.length >= MATCHES_MAX ? '+' : ''}`
  const at = current === null ? -1 : matches.indexOf(current)
  return at < 0 ? many : `${count(at + 1)} / ${many}`
}
