/** The core: no framework, no dependency. `@runcast/client/react` has the hook. */
export { AgentStream } from './stream.js'
export type { AgentStreamOptions, StreamQuery } from './options.js'
export type { Connection, RunStream, StreamListeners, StreamState } from './state.js'
export { RuncastClient } from './api.js'
export type {
  BrokerConfig,
  Health,
  HistoryPage,
  HistoryQuery,
  NewEvent,
  Published,
  PublishOptions,
  RunDetail,
  RunExplanation,
  RunsPage,
  RunSummary,
  Ticket,
} from './api.js'
export type { EndpointOptions, Token, TokenProvider } from './endpoint.js'
export { RuncastError } from './errors.js'
export type { ErrorCode } from './errors.js'
export { isRunEvent, statusText } from './events.js'
export type * from './events.js'
export { LOG_PREFIX } from './log.js'
export type { Logger } from './log.js'
export { EventStreamParser } from './parser.js'
export type { StreamMessage, StreamParserOptions } from './parser.js'
export { openStream } from './shared.js'
export type { OpenStreamOptions } from './shared.js'
export { EMPTY_VIEW, ViewBuffer } from './view.js'
export type { Placed, RunView } from './view.js'
