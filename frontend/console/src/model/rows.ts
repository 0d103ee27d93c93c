/** What of an event is kept and shown: one row, its text ready to draw. */
import {
  statusText,
  type Backend,
  type EndEvent,
  type EventKind,
  type GapEvent,
  type LogLevel,
  type ProblemEvent,
  type RunEvent,
  type SourceEvent,
} from '@runcast/client'
import ansiRegex from 'ansi-regex'
import { stringifyExact } from './exact-json'

export const LEVELS: readonly LogLevel[] = ['trace', 'debug', 'info', 'warn', 'error', 'fatal']

/** How a row's text is to be read. */
export type RowForm = 'text' | 'json' | 'binary'

/** An event of the run. */
export interface EventRow {
  type: 'event'
  /** Grows by one with each row; never used twice. */
  seq: number
  id: string
  kind: EventKind
  source: string
  backend: Backend
  /** Milliseconds since 1970. */
  ts: number
  form: RowForm
  /** A text itself, JSON on one line, or base64. */
  text: string
  /** Index into LEVELS of a `log`, else -1. */
  level: number
  /** What a log says, if its object has a field for it; what a status says. */
  message: string | null
  /** How many lines were written over each other here (progress bars); 1 is plain. */
  writes: number
}

/** Something that stands between events. */
export interface MarkRow {
  type: 'mark'
  seq: number
  event: GapEvent | SourceEvent | ProblemEvent | EndEvent
}

export type Row = EventRow | MarkRow

const ANSI = ansiRegex()

/** Returns `text` without its escape sequences. */
export function plainText(text: string): string {
  return text.includes('\u001b') || text.includes('\u009b') ? text.replace(ANSI, '') : text
}

/** Returns the row of an event. */
export function eventRow(event: RunEvent, seq: number): EventRow {
  const { id, kind, source, backend, data } = event
  const row: EventRow = {
    type: 'event',
    seq,
    id,
    kind,
    source,
    backend,
    ts: Date.parse(event.ts),
    form: 'text',
    text: '',
    level: kind === 'log' ? levelOf(data) : -1,
    message: null,
    writes: 1,
  }
  if (event.data_base64 !== undefined) {
    row.form = 'binary'
    row.text = event.data_base64
  } else if (typeof data === 'string') {
    row.text = data
    if (kind === 'status') row.message = data
  } else {
    row.form = 'json'
    row.text = stringifyExact(data)
    row.message = kind === 'status' ? statusText(data) : kind === 'log' ? messageOf(data) : null
  }
  return row
}

/** Returns a log's level as docs/protocol.md has it: a name, or pino's numbers. */
export function levelOf(data: unknown): number {
  const level = typeof data === 'object' && data !== null && 'level' in data ? data.level : 'info'
  if (typeof level === 'number') return Math.min(5, Math.max(0, Math.floor(level / 10) - 1))
  const name = typeof level === 'string' ? level.toLowerCase() : 'info'
  if (name === 'warning') return 3
  if (name === 'critical') return 5
  const index = LEVELS.indexOf(name as LogLevel)
  return index < 0 ? 2 : index
}

function messageOf(data: unknown): string | null {
  if (typeof data !== 'object' || data === null) return null
  const { msg, message } = data as { msg?: unknown; message?: unknown }
  if (typeof msg === 'string') return msg
  return typeof message === 'string' ? message : null
}

/** Returns what a row says, as text that is copied, saved and searched. */
export function rowText(row: Row): string {
  if (row.type === 'mark') return markText(row.event)
  return row.form === 'text' ? plainText(overwritten(row.text)) : row.text
}

/**
 * Returns what a terminal would show of each line: what follows the last carriage
 * return, with what it did not cover of what stood before.
 */
export function overwritten(text: string): string {
  if (!text.includes('\r')) return text
  return text
    .split(/\r?\n/)
    .map((line) => {
      // At the end of a line it only moves the cursor.
      const parts = line.replace(/\r+$/, '').split('\r')
      return parts.reduce((shown, part) => {
        const covers = plainText(part).length
        const before = plainText(shown)
        // eslint-disable-next-line no-control-regex -- the sequence that clears a line
        if (covers >= before.length || /\u001b\[[0-2]?K/.test(part)) return part
        return part + before.slice(covers)
      }, '')
    })
    .join('\n')
}

const plural = (count: number, what: string) =>
  `${count.toLocaleString('en')} ${what}${count === 1 ? '' : 's'}`

const GAP_WORDS: Record<string, string> = {
  trimmed: 'no longer kept',
  expired: 'the run began anew',
  disconnected: 'the broker had lost Redis',
  restarted: 'the broker restarted',
  slow_client: 'this page read too slowly',
  too_large: 'too large',
  rewound: 'Redis has forgotten some',
  producer: 'the publisher lost them',
  bad_cursor: 'the place is not known here',
  overflow: 'a queue of the broker was full',
}

/** Returns what a mark says. */
export function markText(event: MarkRow['event']): string {
  switch (event.type) {
    case 'gap': {
      const many =
        event.missed === null
          ? 'Events may be missing here'
          : `${plural(event.missed, 'event')} missing here`
      return `${many}: ${GAP_WORDS[event.reason] ?? event.reason}`
    }
    case 'source':
      return `From here on from ${event.to}, before from ${event.from}: ${event.reason}`
    case 'problem':
      return `${event.problem.title}: ${event.problem.detail}`
    case 'end': {
      const many = event.events === null ? '' : `, ${plural(event.events, 'event')} in all`
      return `The run is over: ${event.status}${many}`
    }
  }
}
