/** One run being followed: its stream, and what came of it. */
import { openStream, type BackendChoice, type RunStream, type StreamState } from '@runcast/client'
import { BASE_URL } from './broker'
import { parseExact } from './exact-json'
import { RunLog } from './run-log'

/** Height of a row of one line; the style sheet has the same. */
export const ROW_HEIGHT = 20
const ROWS_MAX = 1_000_000
const CHARACTERS_MAX = 256 * 1024 * 1024

/** Browsers draw no element higher than some bound of their own. */
function rowsThatFit(): number {
  const probe = document.createElement('div')
  probe.style.cssText = 'position:absolute;visibility:hidden'
  document.body.append(probe)
  const heightOf = (asked: number) => {
    probe.style.height = `${asked}px`
    return probe.offsetHeight
  }
  // Past its bound Chromium draws the element as high as it can, Firefox not at all.
  const height = [3e7, 1.5e7, 5e6].map(heightOf).find((drawn) => drawn > 0) ?? 1e6
  probe.remove()
  // A row may be higher than one line.
  return Math.min(ROWS_MAX, Math.floor((height * 0.95) / ROW_HEIGHT))
}

export class RunSession {
  readonly runId: string
  readonly log: RunLog
  readonly #backend: BackendChoice | null
  #stream: RunStream
  #detach: () => void = () => undefined
  #closing: ReturnType<typeof setTimeout> | undefined
  readonly #listeners = new Set<() => void>()

  constructor(runId: string, backend: BackendChoice | null) {
    this.runId = runId
    this.#backend = backend
    this.log = new RunLog({ rows: rowsThatFit(), characters: CHARACTERS_MAX })
    this.#stream = this.#newStream()
  }

  /** Begins to follow; goes on with the same stream if it was closed just now. */
  open(): void {
    clearTimeout(this.#closing)
    this.#closing = undefined
    const { connection } = this.#stream.state
    if (connection === 'closed') this.#stream = this.#newStream()
    else if (connection !== 'idle') return
    const off = [
      this.#stream.on('batch', (batch) => this.log.add(batch)),
      this.#stream.on('state', () => this.#listeners.forEach((listener) => listener())),
    ]
    this.#detach = () => off.forEach((each) => each())
    this.#stream.start()
  }

  /** Lets go of it a moment later: React's strict mode opens it again at once. */
  close(): void {
    this.#closing = setTimeout(() => {
      this.#detach()
      this.#stream.close()
      this.log.close()
    }, 0)
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  readonly getState = (): StreamState => this.#stream.state

  readonly pause = (): void => this.#stream.pause()
  readonly resume = (): void => this.#stream.resume()
  readonly reconnect = (): void => this.#stream.reconnect()

  #newStream(): RunStream {
    return openStream(this.runId, {
      baseUrl: BASE_URL,
      shared: true,
      parseJson: parseExact,
      // The page filters by itself, so that a filter can be taken off again.
      logLevel: 'trace',
      ...(this.#backend !== null && { backend: this.#backend }),
    })
  }
}
