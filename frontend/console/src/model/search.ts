/** Finds rows by their text: a slice per frame, so that a million rows freeze nothing. */
import type { RunLog } from './run-log'
import { rowText, type Row } from './rows'

/** How long a slice may take. */
const SLICE_MS = 8
/** How many rows are looked at between two looks at the clock. */
const STRIDE = 512
/** Most rows found; what comes after them is not searched. */
export const MATCHES_MAX = 100_000

export class Search {
  readonly #log: RunLog
  readonly #needle: string
  readonly #listeners = new Set<() => void>()
  #rows: readonly Row[] = []
  /** The row after the last one looked at. */
  #nextSeq = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Found rows, by `seq`, in order. */
  matches: number[] = []
  version = 0

  constructor(log: RunLog, query: string) {
    this.#log = log
    this.#needle = query.toLowerCase()
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    const off = this.#log.subscribe(this.#look)
    this.#look()
    return () => {
      off()
      clearTimeout(this.#timer)
      this.#timer = undefined
      this.#listeners.delete(listener)
    }
  }

  readonly getVersion = (): number => this.version

  /** Whether rows are left to look at. */
  get busy(): boolean {
    return this.#timer !== undefined
  }

  /** Whether the row was found. */
  has(seq: number): boolean {
    const { matches } = this
    let [low, high] = [0, matches.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((matches[middle] ?? Infinity) < seq) low = middle + 1
      else high = middle
    }
    return matches[low] === seq
  }

  /** Returns the match after `seq`, or before it; round the corner, if need be. */
  next(seq: number | null, step: 1 | -1): number | undefined {
    const { matches } = this
    if (step > 0) return matches.find((each) => seq === null || each > seq) ?? matches[0]
    return matches.findLast((each) => seq === null || each < seq) ?? matches.at(-1)
  }

  /** Looks on, from where it was. A filter that changed begins anew. */
  readonly #look = (): void => {
    if (this.#timer !== undefined) return
    if (this.#needle === '') return
    const { visible } = this.#log
    if (visible !== this.#rows) {
      this.#rows = visible
      this.#nextSeq = 0
      this.matches = []
    }
    const first = visible[0]?.seq ?? Infinity
    const gone = this.matches.findIndex((seq) => seq >= first)
    if (gone !== 0) this.matches.splice(0, gone < 0 ? this.matches.length : gone)
    const left = this.#slice(visible)
    if (left) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        this.#look()
      })
    }
    this.version += 1
    for (const listener of [...this.#listeners]) listener()
  }

  /** Returns whether rows are left. */
  #slice(rows: readonly Row[]): boolean {
    const until = performance.now() + SLICE_MS
    let index = this.#log.indexOf(this.#nextSeq)
    while (index < rows.length && this.matches.length < MATCHES_MAX) {
      const end = Math.min(rows.length, index + STRIDE)
      for (; index < end; index += 1) {
        const row = rows[index]
        if (row && rowText(row).toLowerCase().includes(this.#needle)) this.matches.push(row.seq)
      }
      this.#nextSeq = (rows[index - 1]?.seq ?? -1) + 1
      if (performance.now() > until) return index < rows.length
    }
    return false
  }
}
