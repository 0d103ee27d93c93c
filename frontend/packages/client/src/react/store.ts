/**
 * Streams of a page by what they follow: components that show the same run
 * share one, from the first that appears until the last is gone.
 */
import { asRuncastError } from '../errors.js'
import { openStream, type OpenStreamOptions } from '../shared.js'
import { IDLE, type RunStream } from '../state.js'
import { ViewBuffer } from '../view.js'

/** What a component asks for. */
export interface StoreRequest {
  /** Components with the same key share a stream. */
  key: string
  runId: string
  maxEvents: number
  options: OpenStreamOptions
}

/** A stream, and what came of it. */
export interface Entry {
  /** Undefined if the options are wrong: the view says so. */
  readonly stream: RunStream | undefined
  readonly buffer: ViewBuffer
  readonly detach: () => void
  users: number
  closing: ReturnType<typeof setTimeout> | undefined
}

const entries = new Map<string, Entry>()

/** Returns the entry, and keeps it alive until `release`. */
export function acquire(request: StoreRequest): Entry {
  const entry = entries.get(request.key) ?? open(request)
  entries.set(request.key, entry)
  clearTimeout(entry.closing)
  entry.closing = undefined
  entry.users += 1
  return entry
}

/** Lets go of it. It closes a moment later, unless somebody comes. */
export function release(key: string, entry: Entry): void {
  entry.users -= 1
  if (entry.users > 0) return
  // React's strict mode, and a change of pages, take it up again at once.
  entry.closing = setTimeout(() => {
    entries.delete(key)
    entry.detach()
    entry.stream?.close()
  }, 0)
}

function open({ runId, maxEvents, options }: StoreRequest): Entry {
  const buffer = new ViewBuffer(maxEvents)
  const entry = { buffer, users: 0, closing: undefined }
  try {
    const stream = openStream(runId, { shared: true, ...options })
    const detach = buffer.attach(stream)
    stream.start()
    return { ...entry, stream, detach }
  } catch (error) {
    buffer.setState({ ...IDLE, connection: 'failed', error: asRuncastError(error) })
    return { ...entry, stream: undefined, detach: () => buffer.detach() }
  }
}
