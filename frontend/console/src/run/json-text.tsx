/** JSON on one line, coloured; and as a tree that folds. */
import type { ReactNode } from 'react'
import { JsonView, type Props } from 'react-json-view-lite'
import { parseExact } from '../model/exact-json'
import { marked } from './ansi-text'

const TOKEN = /("(?:[^"\\]|\\.)*")(:)?|(-?\d[\d.eE+-]*)|(true|false|null)/g
/** What is longer is not coloured: nobody reads it on a line. */
const COLOURED_MAX = 2_000

export function JsonLine({ text, needle }: { text: string; needle: string }) {
  if (text.length > COLOURED_MAX) return <>{marked(text, needle)}</>
  const parts: ReactNode[] = []
  let from = 0
  for (const match of text.matchAll(TOKEN)) {
    const [token, string, colon, number] = match
    if (match.index > from) parts.push(spaced(text.slice(from, match.index)))
    const kind = colon ? 'key' : string ? 'string' : number ? 'number' : 'word'
    const shown = colon ? token.slice(0, -1) : token
    parts.push(
      <span key={match.index} className={`json-${kind}`}>
        {marked(shown, needle)}
      </span>,
    )
    if (colon) parts.push(': ')
    from = match.index + token.length
  }
  parts.push(spaced(text.slice(from)))
  return <>{parts}</>
}

const spaced = (punctuation: string) => punctuation.replaceAll(',', ', ')

const STYLE: NonNullable<Props['style']> = {
  container: 'tree',
  basicChildStyle: 'tree-child',
  childFieldsContainer: 'tree-children',
  label: 'tree-label json-key',
  clickableLabel: 'tree-label tree-clickable json-key',
  nullValue: 'json-word',
  undefinedValue: 'json-word',
  booleanValue: 'json-word',
  numberValue: 'json-number',
  stringValue: 'json-string',
  otherValue: 'json-number',
  punctuation: 'tree-punctuation',
  expandIcon: 'tree-icon tree-expand',
  collapseIcon: 'tree-icon tree-collapse',
  collapsedContent: 'tree-collapsed',
  noQuotesForStringValues: false,
  quotesForFieldNames: false,
  stringifyStringValues: true,
  ariaLables: { collapseJson: 'Fold', expandJson: 'Unfold' },
}

/** Large lists and what lies deep begin folded. */
function unfolded(level: number, value: unknown): boolean {
  return level < 3 && (!Array.isArray(value) || value.length <= 50)
}

export function JsonTree({ text }: { text: string }) {
  const value = parseExact(text)
  if (typeof value !== 'object' || value === null) return <JsonLine text={text} needle="" />
  return (
    <JsonView
      data={value}
      style={STYLE}
      shouldExpandNode={unfolded}
      clickToExpandNode
      aria-label="The event's data"
    />
  )
}
