/** Events per second of the last minute, by the broker's clock. */

export const RATE_SECONDS = 60

export class RateMeter {
  /** Events of a second, at its number modulo the length. */
  readonly #counts = new Uint32Array(RATE_SECONDS)
  #newest = 0
  /** How far the broker's clock is ahead of ours. */
  #ahead = 0

  /** Takes note of the broker's time. */
  setClock(now: number): void {
    this.#ahead = now - Date.now()
  }

  count(ts: number): void {
    if (Number.isNaN(ts)) return
    this.#ahead = Math.max(this.#ahead, ts - Date.now())
    const second = Math.floor(ts / 1000)
    this.#moveTo(second)
    if (second <= this.#newest - RATE_SECONDS) return
    const slot = second % RATE_SECONDS
    this.#counts[slot] = (this.#counts[slot] ?? 0) + 1
  }

  get ahead(): number {
    return this.#ahead
  }

  /** Returns the broker's time as far as known. */
  now(): number {
    return Date.now() + this.#ahead
  }

  /** Returns the counts of the last whole seconds, oldest first. */
  seconds(): number[] {
    const last = Math.max(Math.floor(this.now() / 1000) - 1, this.#newest - 1)
    return Array.from({ length: RATE_SECONDS - 1 }, (_, i) => {
      const second = last - (RATE_SECONDS - 2) + i
      const held = second <= this.#newest && second > this.#newest - RATE_SECONDS
      return held ? (this.#counts[second % RATE_SECONDS] ?? 0) : 0
    })
  }

  #moveTo(second: number): void {
    if (second <= this.#newest) return
    const from = Math.max(this.#newest + 1, second - RATE_SECONDS + 1)
    for (let each = from; each <= second; each += 1) this.#counts[each % RATE_SECONDS] = 0
    this.#newest = second
  }
}
