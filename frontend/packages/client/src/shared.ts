/** One connection for all tabs and components that follow the same run. */
import type { AgentStreamOptions } from './options.js'
import type { RunStream } from './state.js'
import { AgentStream } from './stream.js'

export interface OpenStreamOptions extends AgentStreamOptions {
  /** Shares one connection with other tabs of this origin, if the browser can. */
  shared?: boolean | undefined
  /**
   * Whose stream it is, where different people may be logged in in different
   * tabs: only tabs that say the same share.
   */
  identity?: string | undefined
}

/** Returns a stream of a run: shared between tabs if asked for and possible. */
export function openStream(runId: string, options: OpenStreamOptions = {}): RunStream {
  return new AgentStream(runId, options)
}
