/** One component's hold on a stream. */
import type { RunView } from '../view.js'
import { EMPTY_VIEW } from '../view.js'
import { acquire, release, type Entry } from './store.js'
import type { UseAgentStreamOptions } from './use-agent-stream.js'

/** What a component can do with its stream. */
export interface AgentStreamControls {
  /** Connects anew at once, with all attempts to spend again. */
  reconnect: () => void
  /** Lets go of the connection; the place in the run is kept. */
  pause: () => void
  /** Goes on where `pause` left off. */
  resume: () => void
  /** Lets go of what was shown so far, for this component. */
  clear: () => void
}

/**
 * Takes its stream when React subscribes and lets it go when React does, so
 * that rendering alone opens nothing. What the key does not hold (functions) is
 * looked up when it is needed, in the options given last.
 */
export class StreamHandle {
  readonly controls: AgentStreamControls = {
    reconnect: () => this.#entry?.stream?.reconnect(),
    pause: () => this.#entry?.stream?.pause(),
    resume: () => this.#entry?.stream?.resume(),
    clear: () => this.#clear(),
  }
  /** What the component shows now. */
  shown: { value: unknown } | undefined
  readonly #key: string
  readonly #runId: string | null
  #options: UseAgentStreamOptions
  #entry: Entry | undefined
  readonly #listeners = new Set<() => void>()
  /** How many events were there when the component let go of them. */
  #cleared = 0
  #whole: RunView = EMPTY_VIEW
  #view: RunView = EMPTY_VIEW

  constructor(key: string, runId: string | null, options: UseAgentStreamOptions) {
    this.#key = key
    this.#runId = runId
    this.#options = options
  }

  /** Takes note of options that changed without changing the key. */
  update(options: UseAgentStreamOptions): void {
    this.#options = options
  }

  /** Takes note of what the component shows. */
  shows(value: unknown): void {
    this.shown = { value }
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    if (this.#runId === null) return () => undefined
    const entry = acquire({
      key: this.#key,
      runId: this.#runId,
      maxEvents: this.#options.maxEvents ?? 10_000,
      options: this.#current(),
    })
    this.#entry = entry
    this.#listeners.add(listener)
    const off = entry.buffer.subscribe(listener)
    return () => {
      off()
      this.#listeners.delete(listener)
      release(this.#key, entry)
    }
  }

  readonly view = (): RunView => {
    const whole = this.#entry?.buffer.view ?? EMPTY_VIEW
    if (whole !== this.#whole) {
      this.#whole = whole
      this.#view = this.#cleared > 0 ? since(whole, this.#cleared) : whole
    }
    return this.#view
  }

  #clear(): void {
    this.#cleared = this.#entry?.buffer.view.total ?? 0
    this.#whole = EMPTY_VIEW
    for (const listener of [...this.#listeners]) listener()
  }

  #current(): UseAgentStreamOptions {
    const { token, headers, fetch: send } = this.#options
    return {
      ...this.#options,
      ...(typeof token === 'function' && {
        token: (request) => {
          const now = this.#options.token
          return typeof now === 'function' ? now(request) : now
        },
      }),
      ...(typeof headers === 'function' && {
        headers: () => {
          const now = this.#options.headers
          return (typeof now === 'function' ? now() : now) ?? {}
        },
      }),
      ...(send && { fetch: (...args) => (this.#options.fetch ?? fetch)(...args) }),
    }
  }
}

/** Returns `view` without the first `cleared` events. */
function since(view: RunView, cleared: number): RunView {
  const events = view.events.slice(Math.max(0, cleared - view.dropped))
  return {
    ...view,
    events,
    dropped: view.total - events.length,
    gaps: view.gaps.filter((gap) => gap.position >= cleared),
    sources: view.sources.filter((source) => source.position >= cleared),
  }
}

/** Returns what two components must have in common to share a stream. */
export function streamKey(runId: string | null, options: UseAgentStreamOptions): string {
  const { token, headers, fetch: send, parseJson, log, enabled, ...plain } = options
  return JSON.stringify([
    runId,
    enabled ?? true,
    plain,
    typeof token === 'function' ? 'provider' : token,
    typeof headers === 'function' ? 'provider' : headers,
    send !== undefined,
    parseJson !== undefined,
    typeof log === 'object' ? 'logger' : log,
  ])
}
