/**
 * All that this page holds of a run: its rows, which of them pass the filter,
 * its statuses and its rate. Bounded; tells its listeners once per frame.
 */
import type { EventKind, RunEvent, StreamEvent } from '@runcast/client'
import { isOpen, writesOver } from './progress'
import { RateMeter } from './rate-meter'
import { eventRow, type EventRow, type Row } from './rows'

export interface RowFilter {
  kinds: ReadonlySet<EventKind>
  /** Least level of logs, an index into LEVELS. */
  level: number
  /** Only this source; null is all. */
  source: string | null
}

export const ALL: RowFilter = {
  kinds: new Set<EventKind>(['output', 'status', 'log']),
  level: 0,
  source: null,
}

/** A status, and when the run came into it. */
export interface StatusChange {
  status: string
  ts: number
  seq: number
}

/** Bounds of what is held. */
export interface LogBounds {
  rows: number
  /** Characters of all texts together. */
  characters: number
}

/** Most changes of status that are held, and sources that a filter offers. */
const STATUSES_MAX = 60
const SOURCES_MAX = 200
/** A progress line is written over only while it is this near to the end. */
const PROGRESS_NEAR = 50
/** How long a page without frames (a hidden tab) goes without news. */
const QUIET_MS = 250

export class RunLog {
  readonly #bounds: LogBounds
  readonly #listeners = new Set<() => void>()
  /** By source: a line that the next one of its source writes over. */
  readonly #open = new Map<string, EventRow>()
  #characters = 0
  #nextSeq = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #frame = 0
  readonly rows: Row[] = []
  /** Those of `rows` that pass the filter: the same array while there is none. */
  visible: Row[] = this.rows
  filter: RowFilter = ALL
  /** Grows with each change that listeners are told of. */
  version = 0
  /** Whether rows at the beginning were let go since the last change before. */
  shifted = false
  /** Events in all, and how many of the oldest rows were let go. */
  total = 0
  dropped = 0
  firstTs: number | null = null
  lastTs: number | null = null
  statuses: readonly StatusChange[] = []
  sources: ReadonlySet<string> = new Set()
  readonly rate = new RateMeter()

  constructor(bounds: LogBounds) {
    this.#bounds = bounds
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  readonly getVersion = (): number => this.version

  /** Takes what a stream told, in order. */
  add(batch: readonly StreamEvent[]): void {
    if (this.#timer === undefined) this.shifted = false
    for (const event of batch) {
      switch (event.type) {
        case 'output':
        case 'status':
        case 'log':
          this.#addEvent(event)
          break
        case 'gap':
        case 'source':
        case 'problem':
        case 'end':
          this.#push({ type: 'mark', seq: this.#nextSeq++, event })
          break
        case 'heartbeat':
          this.rate.setClock(Date.parse(event.ts))
          break
        default:
      }
    }
    this.#trim()
    this.#schedule()
  }

  setFilter(filter: RowFilter): void {
    this.filter = filter
    this.visible = filter === ALL ? this.rows : this.rows.filter((row) => passes(row, filter))
    this.#publish()
  }

  /** Lets go of all rows. */
  clear(): void {
    this.dropped += this.rows.length
    this.rows.length = 0
    this.#characters = 0
    this.#open.clear()
    this.setFilter(this.filter)
  }

  close(): void {
    clearTimeout(this.#timer)
    cancelAnimationFrame(this.#frame)
    this.#timer = undefined
  }

  /** Returns where in `visible` the row is, or the first one after it. */
  indexOf(seq: number): number {
    let [low, high] = [0, this.visible.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.visible[middle]?.seq ?? Infinity) < seq) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Returns the row of an event; undefined if it is not held. */
  find(id: string): EventRow | undefined {
    return this.rows.findLast((row): row is EventRow => row.type === 'event' && row.id === id)
  }

  #addEvent(event: RunEvent): void {
    const row = eventRow(event, this.#nextSeq)
    this.total += 1
    this.firstTs ??= row.ts
    this.lastTs = row.ts
    this.rate.count(row.ts)
    this.#noteSource(row.source)
    if (row.kind === 'status') this.#noteStatus(row)
    if (row.kind === 'output' && this.#writesOver(row)) return
    this.#nextSeq += 1
    this.#push(row)
  }

  /** A progress line takes the place of the one before it of its source. */
  #writesOver(row: EventRow): boolean {
    const before = this.#open.get(row.source)
    const near = before !== undefined && this.#nextSeq - before.seq <= PROGRESS_NEAR
    const over = near && writesOver(before, row)
    if (over) {
      this.#characters += row.text.length - before.text.length
      const { seq, writes } = before
      Object.assign(before, row, { seq, writes: writes + 1 })
    }
    if (isOpen(row)) {
      if (this.#open.size >= SOURCES_MAX) this.#open.clear()
      this.#open.set(row.source, over ? before : row)
    } else this.#open.delete(row.source)
    return over
  }

  #push(row: Row): void {
    this.rows.push(row)
    if (row.type === 'event') this.#characters += row.text.length
    if (this.visible !== this.rows && passes(row, this.filter)) this.visible.push(row)
  }

  #noteSource(source: string): void {
    if (source === '' || this.sources.has(source) || this.sources.size >= SOURCES_MAX) return
    this.sources = new Set([...this.sources, source])
  }

  #noteStatus({ message, ts, seq }: EventRow): void {
    if (message === null || this.statuses.at(-1)?.status === message) return
    this.statuses = [...this.statuses.slice(1 - STATUSES_MAX), { status: message, ts, seq }]
  }

  /** Lets go of the oldest tenth, and of more until what is left fits. */
  #trim(): void {
    const { rows, characters } = this.#bounds
    if (this.rows.length <= rows && this.#characters <= characters) return
    let gone = Math.min(this.rows.length, Math.ceil(rows / 10))
    let left = this.#characters - charactersOf(this.rows, 0, gone)
    while (left > characters * 0.9 && gone < this.rows.length) {
      left -= charactersOf(this.rows, gone, gone + 1)
      gone += 1
    }
    const firstSeq = this.rows[gone]?.seq ?? this.#nextSeq
    if (this.visible !== this.rows) this.visible.splice(0, this.indexOf(firstSeq))
    this.rows.splice(0, gone)
    this.#characters = left
    this.dropped += gone
    this.shifted = true
  }

  #schedule(): void {
    if (this.#timer !== undefined) return
    this.#timer = setTimeout(this.#publish, QUIET_MS)
    this.#frame = requestAnimationFrame(this.#publish)
  }

  readonly #publish = (): void => {
    this.close()
    this.version += 1
    for (const listener of [...this.#listeners]) listener()
  }
}

function passes(row: Row, { kinds, level, source }: RowFilter): boolean {
  if (row.type === 'mark') return true
  if (!kinds.has(row.kind)) return false
  if (row.kind === 'log' && row.level < level) return false
  return source === null || row.source === source || row.kind === 'status'
}

function charactersOf(rows: readonly Row[], from: number, to: number): number {
  let sum = 0
  for (let i = from; i < to; i += 1) {
    const row = rows[i]
    if (row?.type === 'event') sum += row.text.length
  }
  return sum
}
