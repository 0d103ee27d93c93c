/** Calls once per animation frame; in a hidden tab, which has none, by a timer. */

/** How long a hidden tab, or one whose frames do not come, may wait. */
const TIMER_MS = 250

/** Runs `work` once after each burst of `schedule()`. */
export class FrameScheduler {
  readonly #work: () => void
  #frame: number | undefined
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(work: () => void) {
    this.#work = work
  }

  schedule(): void {
    if (this.#timer !== undefined) return
    // A tab that gets hidden meanwhile draws no frame any more.
    this.#timer = setTimeout(this.#run, TIMER_MS)
    this.#frame = globalThis.requestAnimationFrame?.(this.#run)
  }

  cancel(): void {
    clearTimeout(this.#timer)
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame)
    this.#timer = this.#frame = undefined
  }

  readonly #run = (): void => {
    this.cancel()
    this.#work()
  }
}
