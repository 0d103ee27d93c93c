/** A text with its ANSI colours, and what was searched for marked. */
import Anser from 'anser'
import ansiRegex from 'ansi-regex'
import type { CSSProperties, ReactNode } from 'react'

const ANSI = ansiRegex()
// eslint-disable-next-line no-control-regex -- what begins an escape sequence
const ESCAPES = /[\u001b\u009b]/
// eslint-disable-next-line no-control-regex -- the sequences that colour
const COLOURS = /^\u001b\[[\d;:]*m$/
const CUBE = [0, 95, 135, 175, 215, 255]

/** Returns colour 16 to 255 of a terminal's palette. */
export function paletteColour(index: number): string {
  if (index >= 232) {
    const grey = (index - 232) * 10 + 8
    return `${grey}, ${grey}, ${grey}`
  }
  const at = index - 16
  return [Math.floor(at / 36), Math.floor(at / 6) % 6, at % 6].map((i) => CUBE[i]).join(', ')
}

/** Marks every place where `needle` stands, in lower case, in `text`. */
export function marked(text: string, needle: string): ReactNode {
  if (needle === '') return text
  const lower = text.toLowerCase()
  let at = lower.indexOf(needle)
  // A few letters change their length in lower case; then nothing is marked.
  if (at < 0 || lower.length !== text.length) return text
  const parts: ReactNode[] = []
  let from = 0
  for (; at >= 0; at = lower.indexOf(needle, from)) {
    parts.push(text.slice(from, at))
    from = at + needle.length
    parts.push(<mark key={at}>{text.slice(at, from)}</mark>)
  }
  parts.push(text.slice(from))
  return parts
}

export function AnsiText({ text, needle }: { text: string; needle: string }) {
  if (!ESCAPES.test(text)) return <>{marked(text, needle)}</>
  const coloured = text.replace(ANSI, (sequence) => (COLOURS.test(sequence) ? sequence : ''))
  const parts = Anser.ansiToJson(coloured, { json: true, use_classes: true, remove_empty: true })
  return (
    <>
      {parts.map((part, index) => (
        <span key={index} className={classOf(part)} style={styleOf(part)}>
          {marked(part.content, needle)}
        </span>
      ))}
    </>
  )
}

function classOf({ fg, bg, decorations }: Anser.AnserJsonEntry): string | undefined {
  const classes = decorations.map((name) => `ansi-${name}`)
  if (fg) classes.push(`${fg}-fg`)
  if (bg) classes.push(`${bg}-bg`)
  return classes.length > 0 ? classes.join(' ') : undefined
}

function styleOf(part: Anser.AnserJsonEntry): CSSProperties | undefined {
  const color = exact(part.fg, part.fg_truecolor)
  const background = exact(part.bg, part.bg_truecolor)
  if (color === undefined && background === undefined) return undefined
  return { ...(color && { color }), ...(background && { background }) }
}

function exact(name: string | null, truecolor: string | null): string | undefined {
  if (truecolor) return `rgb(${truecolor})`
  const palette = name?.startsWith('ansi-palette-') ? Number(name.slice(13)) : NaN
  return Number.isNaN(palette) ? undefined : `rgb(${paletteColour(palette)})`
}
