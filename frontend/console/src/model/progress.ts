/** Progress lines: which line is written over by the next one of its source. */
import type { EventRow } from './rows'

const PERCENT = /\d\s?%/
/** What changes in a progress line while the rest stands: figures, bars, spinners. */
const CHANGES = /[\d\s.,:#=>*|/\\_\-\u2500-\u259f\u2800-\u28ff]+/g

type Line = Pick<EventRow, 'form' | 'text' | 'backend'>

/**
 * Whether a later line may be written over this one. A pod's lines never are:
 * its log has a line break between any two.
 */
export function isOpen({ form, text, backend }: Line): boolean {
  if (form !== 'text' || backend === 'kubectl') return false
  return returnsFirst(text) || (text.endsWith('\r') && PERCENT.test(text))
}

/**
 * Whether `next` is written over `before`, which is open. A carriage return
 * ahead of it says so. One at the end of `before` may be half of a CRLF: then
 * only what goes on with the same words counts, or what is no such line itself.
 */
export function writesOver(before: Line, next: Line): boolean {
  if (next.form !== 'text') return false
  if (returnsFirst(next.text)) return true
  if (!before.text.endsWith('\r')) return false
  return !next.text.endsWith('\r') || words(before) === words(next)
}

/** Alone, it is an empty line that ended with CRLF. */
const returnsFirst = (text: string) => text.startsWith('\r') && text !== '\r'

const words = ({ text }: Line) => text.replace(CHANGES, '')
