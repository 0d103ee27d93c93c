// What a call says, and what its answer means. No input or output here.
import { randomBytes } from 'node:crypto'

const RUN_ID = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$/
const PRODUCER_ID = /^[A-Za-z0-9._-]{1,64}$/
// Answers of a Redis that is starting, failing over or being resharded.
const PASSING = /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|UNBLOCKED)\b/
const BACKOFF_MIN_MS = 10
const BACKOFF_MAX_MS = 1000
// The words that end a run, unless a broker is told others.
const TERMINAL = new Set(['completed', 'succeeded', 'failed', 'cancelled', 'canceled', 'error', 'timeout'])

/** An event was not published, or nobody knows whether it was. */
export class RuncastError extends Error {
  constructor(code, message, cause) {
    super(message, cause ? { cause } : undefined)
    this.name = 'RuncastError'
    this.code = code
  }
}

/** Returns `data` as it is published: bytes as they are, all else as JSON. */
export function encode(data) {
  if (data instanceof Uint8Array) return Buffer.from(data)
  const text = JSON.stringify(data)
  if (text === undefined) throw new TypeError(`${typeof data} is no JSON`)
  return Buffer.from(text)
}

/** Whether a status ends the run. */
export function isTerminal(status) {
  return TERMINAL.has(status.toLowerCase())
}

/**
 * One publisher of one run: its name, its epoch, its numbers. Numbers have to
 * reach Redis in their order: one event after the other.
 */
export class Publisher {
  #options
  #restart
  #producer
  #epoch = Date.now()
  #seq = 0
  #known = false
  #retryFor
  #resends
  #knowsTraces = true

  constructor(runId, { producer, prefix = 'run:', options = [], restart = false, retryFor = 30_000, client, traceparent }) {
    if (typeof runId !== 'string' || !RUN_ID.test(runId)) {
      throw new TypeError(
        `run id ${JSON.stringify(runId)}: 1-128 of A-Z a-z 0-9 . _ -, the first and last a letter or digit`,
      )
    }
    if (producer !== undefined && !PRODUCER_ID.test(producer)) {
      throw new TypeError(`producer ${JSON.stringify(producer)}: 1-64 of A-Z a-z 0-9 . _ -`)
    }
    this.runId = runId
    this.keys = [`${prefix}{${runId}}:stream`, `${prefix}{${runId}}:meta`]
    this.#producer = producer ?? `js-${randomBytes(8).toString('hex')}`
    this.#options = options.map(String)
    this.#restart = restart
    this.#retryFor = retryFor
    // A client of somebody's own may send a call again by itself.
    this.#resends = client !== undefined
    this.traceparent = traceparent
  }

  /** Names the next call and takes a number for it. */
  begin(kind, source, payload) {
    this.#seq += 1
    const words = [this.runId, kind, source, payload, ...this.#options]
    if (this.#restart) words.push('RESTART')
    words.push('PRODUCER', this.#producer, String(this.#epoch), String(this.#seq))
    if (this.traceparent && this.#knowsTraces) words.push('TRACE', this.traceparent)
    return { words, deadline: Date.now() + this.#retryFor, failures: 0, uncertain: false }
  }

  /** Returns the event's id, or throws what the answer says. */
  settle(attempt, answer) {
    const [word, detail] = answer.map(String)
    if (word === 'DUP' && !attempt.uncertain && !this.#resends) {
      // Sent once and seen before: the numbers are somebody else's too.
      throw new RuncastError('FENCED', `another process publishes as producer ${this.#producer} right now`)
    }
    if (word === 'OK' || word === 'DUP') {
      this.#known = true
      this.#restart = false
      return detail
    }
    // Not accepted, so the number is still free. If it were left out, clients
    // would be told of a loss that the caller knows of.
    this.#seq -= 1
    const reasons = {
      TOO_LARGE: `the event is larger than ${detail} bytes`,
      CLOSED: `run ${this.runId} is over (its last event is ${detail})`,
      FENCED: `a newer process publishes as producer ${this.#producer}`,
    }
    throw new RuncastError(word, reasons[word] ?? `unknown answer ${word}`)
  }

  /**
   * Returns how many milliseconds to wait before the same call is made again,
   * or throws why it is of no use.
   */
  shouldRetry(attempt, error) {
    const text = String(error?.message || error?.code || error)
    if (text.includes('unknown option TRACE') && attempt.words.at(-2) === 'TRACE') {
      // A function that knows no traces yet: the event matters more.
      this.#knowsTraces = false
      attempt.words.splice(-2)
      return 0
    }
    // What Redis answers begins with a word in capitals; all else is trouble
    // of the connection, and the event may have got there.
    const answered = !error?.code && /^[A-Z]+ /.test(text)
    attempt.uncertain ||= !answered
    const missing = text.includes('Function not found')
    // Redis lost the function in a restart; a broker loads it again.
    const passing = !answered || PASSING.test(text) || (missing && this.#known)
    attempt.failures += 1
    const grown = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(attempt.failures - 1, 10))
    const wait = grown * (0.5 + Math.random() / 2)
    if (passing && Date.now() + wait < attempt.deadline) return wait
    if (!attempt.uncertain) this.#seq -= 1
    if (missing) {
      throw new RuncastError(
        'FUNCTION_MISSING',
        'Redis does not know runcast_publish: a broker loads it when it starts',
        error,
      )
    }
    if (passing) {
      throw new RuncastError('NOT_PUBLISHED', `no answer from Redis for ${this.#retryFor} ms: ${text}`, error)
    }
    throw new RuncastError('REDIS', text, error)
  }

  /** Milliseconds left for an attempt, at least 1. */
  static left(attempt) {
    return Math.max(1, attempt.deadline - Date.now())
  }
}
