/**
 * The two variables that configure a page at build time. Bundlers (Next.js and
 * others) put their values in place of the two expressions below, which must
 * therefore stand here to the letter. Where nobody does and there is no
 * `process`, as in a plain page, they count as not set.
 */

declare const process: { env: Record<string, string | undefined> }

function read(variable: () => string | undefined): string | undefined {
  try {
    const value = variable()?.trim()
    return value === '' ? undefined : value
  } catch {
    return undefined
  }
}

/** Returns `NEXT_PUBLIC_STREAMING_BACKEND`. */
export function backendVariable(): string | undefined {
  return read(() => process.env.NEXT_PUBLIC_STREAMING_BACKEND)
}

/** Returns `NEXT_PUBLIC_API_BASE_URL`. */
export function baseUrlVariable(): string | undefined {
  return read(() => process.env.NEXT_PUBLIC_API_BASE_URL)
}
