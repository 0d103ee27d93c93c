/** The hook. */
import { useEffect, useMemo, useSyncExternalStore } from 'react'
import type { OpenStreamOptions } from '../shared.js'
import { EMPTY_VIEW, type RunView } from '../view.js'
import { StreamHandle, streamKey, type AgentStreamControls } from './stream-handle.js'

export interface UseAgentStreamOptions extends Omit<OpenStreamOptions, 'signal'> {
  /** False follows nothing for now. Default true. */
  enabled?: boolean | undefined
  /** Most events kept; the oldest go. Default 10,000. */
  maxEvents?: number | undefined
}

export interface UseAgentStreamSelect<S, T = unknown> extends UseAgentStreamOptions {
  /** What the component shows of the run: it renders again only when that changes. */
  select: (view: RunView<T>) => S
  /** Whether two selections are the same. Default `Object.is`. */
  isEqual?: ((a: S, b: S) => boolean) | undefined
}

/**
 * Follows a run while the component is there. Updates come once per animation
 * frame. The run and all options may change at any time; null follows nothing.
 * By default the connection is shared with other tabs (`shared`).
 */
export function useAgentStream<S, T = unknown>(
  runId: string | null | undefined,
  options: UseAgentStreamSelect<S, T>,
): { selected: S } & AgentStreamControls
export function useAgentStream<T = unknown>(
  runId: string | null | undefined,
  options?: UseAgentStreamOptions,
): RunView<T> & AgentStreamControls
export function useAgentStream<S>(
  runId: string | null | undefined,
  options: UseAgentStreamOptions & Partial<UseAgentStreamSelect<S>> = {},
): (RunView & AgentStreamControls) | ({ selected: S } & AgentStreamControls) {
  const { select, isEqual, ...rest } = options
  const followed = rest.enabled === false ? null : (runId ?? null)
  const key = streamKey(followed, rest)
  // eslint-disable-next-line react-hooks/exhaustive-deps -- the key is what counts of `rest`
  const handle = useMemo(() => new StreamHandle(key, followed, rest), [key, followed])
  useEffect(() => handle.update(rest))

  const snapshot = useMemo(
    () => memoized<RunView | S>(select ?? whole, isEqual as Same<RunView | S>, handle),
    [select, isEqual, handle],
  )
  const selected = useSyncExternalStore<RunView | S>(
    handle.subscribe,
    () => snapshot(handle.view()),
    () => snapshot(EMPTY_VIEW),
  )
  useEffect(() => {
    handle.shows(selected)
  })
  const { controls } = handle
  const isWhole = select === undefined
  return useMemo(
    () =>
      isWhole
        ? { ...(selected as RunView), ...controls }
        : { selected: selected as S, ...controls },
    [selected, controls, isWhole],
  )
}

type Same<S> = ((a: S, b: S) => boolean) | undefined

const whole = (view: RunView): RunView => view

/**
 * Returns `select`, done once for each view, and giving what the component shows
 * already where that is the same.
 */
function memoized<S>(
  select: (view: RunView) => S,
  isEqual: Same<S> = Object.is,
  handle: Pick<StreamHandle, 'shown'>,
): (view: RunView) => S {
  let last: { view: RunView; value: S } | undefined
  return (view) => {
    if (last?.view === view) return last.value
    const value = select(view)
    const known = last ?? (handle.shown as { value: S } | undefined)
    last = { view, value: known && isEqual(known.value, value) ? known.value : value }
    return last.value
  }
}
