/** Calls that answer with JSON, and the paths of the API. */
import type { Endpoint, EndpointRequest } from './endpoint.js'
import { asRuncastError, responseError } from './errors.js'

/** Returns what the broker answers; anything but a 2xx is a RuncastError. */
export async function requestJson<T>(
  endpoint: Endpoint,
  path: string,
  init: EndpointRequest = {},
): Promise<T> {
  try {
    const response = await endpoint.request(path, init)
    if (!response.ok) throw await responseError(response)
    return (await response.json()) as T
  } catch (error) {
    // Who aborted knows why.
    init.signal?.throwIfAborted()
    throw asRuncastError(error)
  }
}

/** Returns the path of a run; the broker says what is wrong with a bad id. */
export function runPath(runId: string): string {
  return `/api/v1/runs/${encodeURIComponent(runId)}`
}

/** Returns `?key=value…` of what is given, or nothing. */
export function queryString(query: Record<string, string | number | undefined>): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '')
  const text = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString()
  return text && `?${text}`
}
