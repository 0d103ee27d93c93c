/** Taking a run's events away: to the clipboard, or as a file. */
import type { Row } from '../model/rows'
import { rowText } from '../model/rows'

/** Returns a row as a line of a text file. */
export function textLine(row: Row): string {
  if (row.type === 'mark') return `--- ${rowText(row)} ---`
  const from = row.source === '' ? row.kind : `${row.kind} ${row.source}`
  return `${new Date(row.ts).toISOString()} ${from}: ${rowText(row)}`
}

/** Returns a row as a line of NDJSON; its data to the letter. */
export function jsonLine(row: Row): string {
  if (row.type === 'mark') {
    const { type, ...data } = row.event
    return JSON.stringify({ event: type, data })
  }
  const { id, kind, source, ts, text, form } = row
  const head = JSON.stringify({ id, kind, source, ts: new Date(ts).toISOString() }).slice(0, -1)
  if (form === 'binary') return `${head},"data_base64":${JSON.stringify(text)}}`
  return `${head},"data":${form === 'json' ? text : JSON.stringify(text)}}`
}

/** Offers rows as a file; they are made into text by parts. */
export function download(name: string, rows: readonly Row[], line: (row: Row) => string): void {
  const parts: string[] = []
  for (let from = 0; from < rows.length; from += 10_000) {
    parts.push(
      rows
        .slice(from, from + 10_000)
        .map((row) => `${line(row)}\n`)
        .join(''),
    )
  }
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob(parts, { type: 'text/plain;charset=utf-8' }))
  link.download = name
  link.click()
  // The browser has taken it up by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}

/** Copies; returns whether that worked. Browsers forbid it to pages without TLS. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copyOldWay(text)
  }
}

function copyOldWay(text: string): boolean {
  const area = document.createElement('textarea')
  area.value = text
  area.setAttribute('readonly', '')
  area.className = 'off-screen'
  document.body.append(area)
  area.select()
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- all there is over plain HTTP
  const done = document.execCommand('copy')
  area.remove()
  return done
}
