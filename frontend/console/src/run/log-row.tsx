/** One row of a run: an event, or what stands between events. */
import { memo, type MouseEvent } from 'react'
import {
  LEVELS,
  markText,
  overwritten,
  plainText,
  type EventRow,
  type MarkRow,
} from '../model/rows'
import { clock, count, elapsed, statusTone } from '../model/words'
import { parseExact, stringifyExact } from '../model/exact-json'
import { AnsiText, marked } from './ansi-text'
import { JsonLine, JsonTree } from './json-text'

export type Times = 'clock' | 'elapsed' | 'none'

export interface RowLook {
  times: Times
  /** When the run began: what elapsed times count from. */
  since: number
  /** What was searched for, in lower case. */
  needle: string
  showSource: boolean
}

interface EventProps {
  row: EventRow
  /** Of a line that is written over: memo cannot see it in the row. */
  writes: number
  look: RowLook
  open: boolean
  state: 'current' | 'match' | undefined
  href: string
  onToggle: (seq: number) => void
  onLink: (row: EventRow) => void
  onPick: (seq: number) => void
}

/** What is longer than this begins folded. */
const LONG_CHARACTERS = 2_000
const LONG_LINES = 25

export const EventLine = memo(function EventLine(props: EventProps) {
  const { row, look, open, state, onToggle } = props
  const level = row.kind === 'log' ? LEVELS[row.level] : undefined
  const folds = row.form === 'json' || isLong(row)
  return (
    <div
      className="row"
      data-kind={row.kind}
      data-level={level}
      data-state={state}
      data-seq={row.seq}
      onClick={() => props.onPick(row.seq)}
    >
      {look.times !== 'none' && <Time {...props} />}
      {look.showSource && (
        <span className="row-source" title={row.source}>
          {row.source}
        </span>
      )}
      <span className="row-fold">
        {folds && (
          <button
            className="fold"
            aria-expanded={open}
            aria-label={open ? 'Fold' : 'Unfold'}
            tabIndex={-1}
            onClick={() => onToggle(row.seq)}
          />
        )}
      </span>
      <div className="row-text">
        <Content row={row} look={look} open={open} level={level} onToggle={onToggle} />
        {row.writes > 1 && (
          <span className="row-writes" title={`Written over ${count(row.writes - 1)} times`}>
            ↻ {count(row.writes)}
          </span>
        )}
      </div>
    </div>
  )
})

function Time({ row, look, href, onLink }: EventProps) {
  const onClick = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return
    event.preventDefault()
    onLink(row)
  }
  const at = new Date(row.ts)
  return (
    <a className="row-time" href={href} tabIndex={-1} onClick={onClick} title={titleOf(at)}>
      {look.times === 'clock' ? clock(row.ts) : elapsed(row.ts - look.since)}
    </a>
  )
}

function titleOf(at: Date): string {
  return Number.isNaN(at.getTime())
    ? 'Link to this event'
    : `${at.toISOString()} · link to this event`
}

function isLong({ text }: EventRow): boolean {
  if (text.length > LONG_CHARACTERS) return true
  let lines = 0
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) {
    lines += 1
    if (lines > LONG_LINES) return true
  }
  return false
}

interface ContentProps {
  row: EventRow
  look: RowLook
  open: boolean
  level: string | undefined
  onToggle: (seq: number) => void
}

function Content({ row, look, open, level, onToggle }: ContentProps) {
  const { needle } = look
  if (row.kind === 'status') {
    return (
      <>
        <span className={`pill ${statusTone(row.message)}`}>
          {marked(row.message ?? 'status', needle)}
        </span>
        {row.form === 'json' && <Json row={row} open={open} needle={needle} without="status" />}
        {row.message === null && row.form === 'text' && row.text}
      </>
    )
  }
  if (level !== undefined) {
    return (
      <>
        <span className="level">{level}</span>
        {row.message !== null && (
          <>
            <AnsiText text={row.message} needle={needle} />{' '}
          </>
        )}
        {row.form === 'json' ? (
          <Json row={row} open={open} needle={needle} without="log" />
        ) : (
          <Text row={row} open={open} needle={needle} onToggle={onToggle} />
        )}
      </>
    )
  }
  if (row.form === 'json') return <Json row={row} open={open} needle={needle} />
  return <Text row={row} open={open} needle={needle} onToggle={onToggle} />
}

interface JsonProps {
  row: EventRow
  open: boolean
  needle: string
  /** What the row says already in other words, and the line leaves out. */
  without?: 'log' | 'status'
}

function Json({ row, open, needle, without }: JsonProps) {
  if (open) return <JsonTree text={row.text} />
  const text = without === undefined || row.message === null ? row.text : rest(row.text, without)
  if (text === null) return null
  const shown = text.length > LONG_CHARACTERS ? `${text.slice(0, LONG_CHARACTERS)}…` : text
  return (
    <span className={without === undefined ? undefined : 'row-rest'}>
      <JsonLine text={shown} needle={needle} />
    </span>
  )
}

/** Returns an object's other fields; null if there are none. */
function rest(text: string, without: 'log' | 'status'): string | null {
  if (text.length > LONG_CHARACTERS) return text
  const fields = parseExact(text) as Record<string, unknown>
  if (without === 'status') delete fields.status
  else {
    delete fields.level
    if (typeof fields.msg === 'string') delete fields.msg
    else delete fields.message
  }
  return Object.keys(fields).length === 0 ? null : stringifyExact(fields)
}

function Text({
  row,
  open,
  needle,
  onToggle,
}: Omit<ContentProps, 'look' | 'level'> & { needle: string }) {
  if (row.form === 'binary') {
    const bytes = Math.floor((row.text.replace(/=+$/, '').length * 3) / 4)
    return (
      <>
        <span className="tag">{count(bytes)} bytes, base64</span>{' '}
        {open ? row.text : row.text.slice(0, 200)}
      </>
    )
  }
  const whole = overwritten(row.text)
  if (open || !isLong(row)) return <AnsiText text={whole} needle={needle} />
  const cut = whole.slice(0, LONG_CHARACTERS).split('\n').slice(0, LONG_LINES).join('\n')
  return (
    <>
      <AnsiText text={cut} needle={needle} />
      <button className="more" tabIndex={-1} onClick={() => onToggle(row.seq)}>
        … {count(plainText(whole).length - plainText(cut).length)} more characters
      </button>
    </>
  )
}

interface MarkProps {
  row: MarkRow
  state: EventProps['state']
}

/** A gap, a change of backend, a problem, the end: across the whole width. */
export const MarkLine = memo(function MarkLine({ row, state }: MarkProps) {
  const { event } = row
  const tone = event.type === 'end' ? statusTone(event.status, true) : undefined
  return (
    <div
      className="row mark-row"
      data-mark={event.type}
      data-tone={tone}
      data-seq={row.seq}
      data-state={state}
    >
      <span className="mark-text">{markText(event)}</span>
    </div>
  )
})
