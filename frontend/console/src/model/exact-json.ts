/** JSON without loss: whole numbers of any length. */

type Context = { source?: string } | undefined
type Transform = (key: string, value: unknown, context: Context) => unknown
/** With what newer browsers tell a reviver, and take from a replacer. */
const json = JSON as unknown as {
  parse: (text: string, reviver?: Transform) => unknown
  rawJSON: (text: string) => unknown
}

/** Sixteen digits or more in a row: what a double may not hold. */
const LONG_NUMBER = /\d{16}/

/** Reads JSON; long whole numbers become a BigInt, where the browser can. */
export function parseExact(text: string): unknown {
  if (!LONG_NUMBER.test(text)) return JSON.parse(text)
  return json.parse(text, (_key, value, context) => {
    const source = context?.source
    if (typeof value !== 'number' || source === undefined || !/^-?\d+$/.test(source)) return value
    return Number.isSafeInteger(value) ? value : BigInt(source)
  })
}

/** Returns what `parseExact` read as JSON again, its numbers as they were sent. */
export function stringifyExact(value: unknown): string {
  try {
    return JSON.stringify(value)
  } catch {
    // There is a BigInt in it.
    return JSON.stringify(value, (_key, each: unknown) =>
      typeof each === 'bigint' ? json.rawJSON(String(each)) : each,
    )
  }
}
