/** Listeners by name; one that throws does not disturb the others. */

export class Emitter<Events extends Record<string, unknown>> {
  readonly #listeners = new Map<keyof Events, Set<(value: never) => void>>()

  /** Adds a listener, and returns what removes it. */
  on<Name extends keyof Events>(name: Name, listener: (value: Events[Name]) => void): () => void {
    const known = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, known)
    known.add(listener)
    return () => void known.delete(listener)
  }

  emit<Name extends keyof Events>(name: Name, value: Events[Name]): void {
    const known = this.#listeners.get(name)
    if (!known) return
    for (const listener of [...known] as ((value: Events[Name]) => void)[]) {
      try {
        listener(value)
      } catch (error) {
        // Uncaught, as in an event listener: not ours to judge.
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }
}
