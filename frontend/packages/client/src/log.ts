/** Where the life of a connection is told: the console, under one prefix. */

/** The part of `console` that is used. */
export interface Logger {
  debug(message: string): void
  info(message: string): void
  warn(message: string): void
}

/** What every line begins with: filter by it, or for lines without it. */
export const LOG_PREFIX = '[runcast]'

const SILENT: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined }

/**
 * Returns the logger that the option `log` means: true is the console, false
 * nothing. Undefined is the console in browsers and workers, and nothing
 * elsewhere, where stdout may be somebody's output.
 */
export function loggerFor(log: boolean | Logger | undefined): Logger {
  if (typeof log === 'object') return log
  return (log ?? inBrowser()) ? console : SILENT
}

/** Whether this is a page or a worker of one. */
export function inBrowser(): boolean {
  return 'document' in globalThis || 'WorkerGlobalScope' in globalThis
}
