/** Ids seen lately. */

const IDS_MAX = 4_096

/** A set of the last few thousand ids: the oldest one leaves for a new one. */
export class RecentIds {
  readonly #known = new Set<string>()

  has(id: string): boolean {
    return this.#known.has(id)
  }

  /** Adds `id`; returns false if it is known. */
  add(id: string): boolean {
    if (this.#known.has(id)) return false
    this.#known.add(id)
    if (this.#known.size > IDS_MAX) {
      // A Set gives its values in the order in which they came.
      for (const oldest of this.#known) {
        this.#known.delete(oldest)
        break
      }
    }
    return true
  }
}
