/** The rows of a run, as many as are seen: follows its tail until one scrolls up. */
import {
  useCallback,
  useEffect,
  useImperativeHandle,
  useLayoutEffect,
  useRef,
  useState,
  useSyncExternalStore,
  type KeyboardEvent,
  type Ref,
} from 'react'
import { Virtualizer, type VirtualizerHandle } from 'virtua'
import type { RunLog } from '../model/run-log'
import { ROW_HEIGHT } from '../model/run-session'
import type { EventRow, Row } from '../model/rows'
import { EventLine, MarkLine, type RowLook } from './log-row'

export interface LogViewHandle {
  /** Shows a row in the middle, and makes it the current one. */
  show: (seq: number) => void
  focus: () => void
}

interface LogViewProps {
  ref: Ref<LogViewHandle>
  log: RunLog
  look: RowLook
  wrap: boolean
  following: boolean
  onFollowing: (following: boolean) => void
  current: number | null
  onCurrent: (seq: number | null) => void
  isMatch: ((seq: number) => boolean) | null
  hrefOf: (row: EventRow) => string
  onLink: (row: EventRow) => void
}

/** Above the first row; the style sheet has the same. */
const PADDING_PX = 6
/** Nearer to its end than this, the list is at its end. */
const END_PX = 24
/**
 * How many frames without a measure of rows a row that was asked for stays in its
 * place. Not a time: on a busy machine the next measure comes late, but not frames
 * late.
 */
const SETTLE_FRAMES = 10

/** A row that was asked for: rows on the way to it are measured only once seen. */
interface Target {
  seq: number
  align: 'center' | 'nearest'
  framesLeft: number
}

export function LogView(props: LogViewProps) {
  const { ref, log, look, wrap, following, onFollowing, current, onCurrent } = props
  const { isMatch, hrefOf, onLink } = props
  const version = useSyncExternalStore(log.subscribe, log.getVersion)
  const scroller = useRef<HTMLDivElement>(null)
  const list = useRef<VirtualizerHandle>(null)
  const [unfolded, setUnfolded] = useState<ReadonlySet<number>>(new Set())
  const top = useRef(0)
  const target = useRef<Target | null>(null)
  const { visible } = log

  const toEnd = useCallback(() => {
    const element = scroller.current
    if (!element || !following) return
    target.current = null
    element.scrollTop = element.scrollHeight
    top.current = element.scrollTop
  }, [following])
  useLayoutEffect(toEnd, [toEnd, version, look, wrap])

  // Not by the list's own `scrollToIndex`: it goes there again with each row that is
  // measured, and so never lets go of a run that grows.
  const place = useCallback(() => {
    const [element, rows, at] = [scroller.current, list.current, target.current]
    if (!element || !rows || !at) return
    at.framesLeft = SETTLE_FRAMES
    const index = log.indexOf(at.seq)
    const start = PADDING_PX + rows.getItemOffset(index)
    const room = element.clientHeight - rows.getItemSize(index)
    if (at.align === 'center') element.scrollTop = start - room / 2
    else if (element.scrollTop > start) element.scrollTop = start
    else if (element.scrollTop < start - room) element.scrollTop = start - room
  }, [log])
  const reveal = useCallback(
    (seq: number, align: Target['align']) => {
      const asked: Target = { seq, align, framesLeft: SETTLE_FRAMES }
      target.current = asked
      place()
      const onFrame = () => {
        if (target.current !== asked) return
        if (list.current && list.current.viewportSize > 0) asked.framesLeft -= 1
        if (asked.framesLeft > 0) requestAnimationFrame(onFrame)
        else target.current = null
      }
      requestAnimationFrame(onFrame)
    },
    [place],
  )
  const letGo = () => {
    target.current = null
  }
  const onResize = useCallback(() => {
    toEnd()
    place()
  }, [toEnd, place])

  // Growing never moves the top of what is seen upwards: only a reader does.
  const onScroll = () => {
    const element = scroller.current
    if (!element) return
    const left = element.scrollHeight - element.scrollTop - element.clientHeight
    if (left < END_PX) onFollowing(true)
    else if (element.scrollTop < top.current - 1) onFollowing(false)
    top.current = element.scrollTop
  }

  const show = useCallback(
    (seq: number) => {
      onFollowing(false)
      onCurrent(seq)
      reveal(seq, 'center')
    },
    [reveal, onCurrent, onFollowing],
  )
  useImperativeHandle(ref, () => ({ show, focus: () => scroller.current?.focus() }), [show])

  const onToggle = useCallback((seq: number) => {
    setUnfolded((before) => {
      const after = new Set(before)
      if (!after.delete(seq)) after.add(seq)
      return after
    })
  }, [])

  const move = (step: number) => {
    const at = current === null ? -1 : log.indexOf(current)
    const from = current === null ? topIndex(list.current, scroller.current) : at + step
    const next = visible[Math.max(0, Math.min(visible.length - 1, from))]
    if (!next) return
    onFollowing(false)
    onCurrent(next.seq)
    reveal(next.seq, 'nearest')
  }
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey)
      return
    letGo()
    const actions: Record<string, () => void> = {
      j: () => move(1),
      k: () => move(-1),
      Enter: () => current !== null && onToggle(current),
      ArrowRight: () => current !== null && !unfolded.has(current) && onToggle(current),
      ArrowLeft: () => current !== null && unfolded.has(current) && onToggle(current),
      End: () => onFollowing(true),
      G: () => onFollowing(true),
      g: () => {
        onFollowing(false)
        scroller.current?.scrollTo({ top: 0 })
      },
    }
    const action = actions[event.key]
    if (!action) return
    action()
    event.preventDefault()
  }

  useEffect(() => {
    // A row that is gone cannot be the current one.
    const first = visible[0]?.seq
    if (current !== null && first !== undefined && current < first) onCurrent(null)
  }, [version, visible, current, onCurrent])

  const stateOf = (seq: number) =>
    seq === current ? 'current' : isMatch?.(seq) ? 'match' : undefined
  const lines = (row: Row) =>
    row.type === 'mark' ? (
      <MarkLine key={row.seq} row={row} state={stateOf(row.seq)} />
    ) : (
      <EventLine
        key={row.seq}
        row={row}
        writes={row.writes}
        look={look}
        open={unfolded.has(row.seq)}
        state={stateOf(row.seq)}
        href={hrefOf(row)}
        onLink={onLink}
        onToggle={onToggle}
        onPick={onCurrent}
      />
    )
  return (
    <div
      ref={scroller}
      className="log"
      role="log"
      aria-live="off"
      aria-label="Events of the run"
      tabIndex={0}
      data-wrap={wrap}
      onScroll={onScroll}
      onWheel={letGo}
      onPointerDown={letGo}
      onKeyDown={onKeyDown}
    >
      <Virtualizer
        ref={list}
        scrollRef={scroller}
        data={visible}
        itemSize={ROW_HEIGHT}
        bufferSize={5 * ROW_HEIGHT}
        startMargin={PADDING_PX}
        shift={log.shifted}
        onResize={onResize}
      >
        {lines}
      </Virtualizer>
    </div>
  )
}

function topIndex(list: VirtualizerHandle | null, scroller: HTMLElement | null): number {
  return list?.findItemIndex(scroller?.scrollTop ?? 0) ?? 0
}
