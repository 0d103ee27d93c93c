/**
 * The event stream parser of the WHATWG HTML standard, section 9.2.6, over
 * bytes that may be cut anywhere.
 */

/** One dispatched event of an event stream. */
export interface StreamMessage {
  /** Its `event` field; `message` if it has none. */
  event: string
  data: string
  /** The `id` given with it; undefined if it has none. */
  id: string | undefined
}

export interface StreamParserOptions {
  onMessage: (message: StreamMessage) => void
  /** Told the reconnection time in milliseconds. */
  onRetry?: ((milliseconds: number) => void) | undefined
  /**
   * Most characters of an event or a line that are held; past it `push` throws
   * a RangeError. Default 64 Mi: four times the largest event a broker can be
   * set to take, which JSON may have to escape.
   */
  lengthMax?: number | undefined
}

const LENGTH_MAX = 64 * 1024 * 1024

/**
 * Turns the bytes of one response into messages. At the end of a response drop
 * it: an event without its empty line was cut and does not count.
 */
export class EventStreamParser {
  /** The id of the last event, also of one without data; `''` if none. */
  lastEventId = ''
  /** Drops a byte order mark at the beginning, and keeps characters whole. */
  readonly #decoder = new TextDecoder()
  readonly #options: StreamParserOptions
  readonly #lengthMax: number
  /** A line that goes on in the next piece. */
  #line = ''
  /** The last piece ended with CR: an LF at the start of the next belongs to it. */
  #afterCr = false
  #event = ''
  #data: string | undefined
  #id: string | undefined

  constructor(options: StreamParserOptions) {
    this.#options = options
    this.#lengthMax = options.lengthMax ?? LENGTH_MAX
  }

  /** Takes the next bytes, and calls back for every event they complete. */
  push(bytes: Uint8Array): void {
    const text = this.#decoder.decode(bytes, { stream: true })
    if (text === '') return
    let start = this.#afterCr && text.startsWith('\n') ? 1 : 0
    this.#afterCr = false
    // Each end of line is looked for once: text without a CR is not searched
    // for one again after every line.
    let lf = text.indexOf('\n', start)
    let cr = text.indexOf('\r', start)
    while (lf >= 0 || cr >= 0) {
      const atCr = cr >= 0 && (lf < 0 || cr < lf)
      const end = atCr ? cr : lf
      this.#take(this.#line + text.slice(start, end))
      this.#line = ''
      start = end + 1
      if (atCr) {
        if (start === text.length) this.#afterCr = true
        else if (lf === start) start += 1
        cr = text.indexOf('\r', start)
      }
      if (lf >= 0 && lf < start) lf = text.indexOf('\n', start)
    }
    this.#line += text.slice(start)
    this.#check(this.#line.length)
  }

  #check(length: number): void {
    if (length > this.#lengthMax) {
      throw new RangeError(`an event is longer than ${this.#lengthMax} characters`)
    }
  }

  #take(line: string): void {
    if (line === '') {
      this.#dispatch()
      return
    }
    const colon = line.indexOf(':')
    if (colon === 0) return
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (field === 'data') {
      this.#data = this.#data === undefined ? value : `${this.#data}\n${value}`
      this.#check(this.#data.length)
    } else if (field === 'event') {
      this.#event = value
    } else if (field === 'id') {
      if (!value.includes('\0')) this.#id = value
    } else if (field === 'retry') {
      if (/^[0-9]+$/.test(value)) this.#options.onRetry?.(Number(value))
    }
  }

  #dispatch(): void {
    const event = this.#event || 'message'
    const data = this.#data
    const id = this.#id
    this.#event = ''
    this.#data = this.#id = undefined
    if (id !== undefined) this.lastEventId = id
    if (data !== undefined) this.#options.onMessage({ event, data, id })
  }
}
