/** What a reader likes, kept in this browser. */
import { useCallback, useState } from 'react'

function read(key: string): string | null {
  try {
    return localStorage.getItem(key)
  } catch {
    // A browser may forbid it; then nothing is kept.
    return null
  }
}

function write(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
  } catch {
    // See above.
  }
}

/** A state that is kept; `allowed` are its values, the first one the default. */
export function usePreference<T extends string>(
  name: string,
  allowed: readonly [T, ...T[]],
): [T, (value: T) => void] {
  const key = `runcast.${name}`
  const [value, setValue] = useState<T>(
    () => allowed.find((each) => each === read(key)) ?? allowed[0],
  )
  const set = useCallback(
    (next: T) => {
      setValue(next)
      write(key, next)
    },
    [key],
  )
  return [value, set]
}
