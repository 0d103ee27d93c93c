/** What an iteration over a stream has not taken yet. */

/** Past so many events the stream is not read further until some are taken. */
export const QUEUE_MAX = 1_000

/**
 * A queue between a stream and one `for await`. It never drops: when it is full
 * the stream waits, and its broker keeps the rest.
 */
export class IterationQueue<T> implements AsyncIterator<T> {
  #items: T[] = []
  #taken = 0
  #over = false
  #error: Error | undefined
  #waiting: { resolve: (result: IteratorResult<T>) => void; reject: (error: Error) => void }[] = []
  readonly #onTaken: () => void
  readonly #onReturn: () => void

  constructor(onTaken: () => void, onReturn: () => void) {
    this.#onTaken = onTaken
    this.#onReturn = onReturn
  }

  get full(): boolean {
    return !this.#over && this.#items.length - this.#taken >= QUEUE_MAX
  }

  push(item: T): void {
    const waiting = this.#waiting.shift()
    if (waiting) waiting.resolve({ done: false, value: item })
    else this.#items.push(item)
  }

  /** No more will come; with an error, that is what the iteration throws. */
  finish(error?: Error): void {
    if (this.#over) return
    this.#over = true
    this.#error = error
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      if (error) reject(error)
      else resolve({ done: true, value: undefined })
    }
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#taken < this.#items.length) {
      const value = this.#items[this.#taken++] as T
      if (this.#taken === this.#items.length) {
        this.#items = []
        this.#taken = 0
      }
      this.#onTaken()
      return Promise.resolve({ done: false, value })
    }
    if (this.#error) return Promise.reject(this.#error)
    if (this.#over) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  return(): Promise<IteratorResult<T>> {
    this.#items = []
    this.#taken = 0
    this.finish()
    this.#onReturn()
    return Promise.resolve({ done: true, value: undefined })
  }
}
