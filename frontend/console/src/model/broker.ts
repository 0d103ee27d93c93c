/** The broker that serves this page, and how its JSON is read. */
import { RuncastClient } from '@runcast/client'

/** The page's own directory: a proxy may have put a path in front of it. */
export const BASE_URL = new URL('.', location.href).href.replace(/\/$/, '')

export const runcast = new RuncastClient({ baseUrl: BASE_URL })

type Reviver = (key: string, value: unknown, context?: { source?: string }) => unknown
const withReviver = JSON.parse as (text: string, reviver?: Reviver) => unknown
const { rawJSON } = JSON as { rawJSON?: (text: string) => unknown }

/** Sixteen digits or more in a row: what a double may not hold. */
const LONG_NUMBER = /\d{16}/

/**
 * Reads JSON so that `JSON.stringify` gives numbers back as they were sent, where
 * the browser can (`JSON.rawJSON`).
 */
export function parseExact(text: string): unknown {
  if (!rawJSON || !LONG_NUMBER.test(text)) return JSON.parse(text)
  return withReviver(text, (_key, value, context) => {
    if (typeof value !== 'number' || context?.source === undefined) return value
    return String(value) === context.source ? value : rawJSON(context.source)
  })
}

/** Reads JSON for showing it as a tree: long whole numbers become a BigInt. */
export function parseForTree(text: string): unknown {
  if (!LONG_NUMBER.test(text)) return JSON.parse(text)
  return withReviver(text, (_key, value, context) => {
    const source = context?.source
    if (typeof value !== 'number' || source === undefined || !/^-?\d+$/.test(source)) return value
    return Number.isSafeInteger(value) ? value : BigInt(source)
  })
}
