import { expect, test } from 'vitest'
import type { EventRow } from '../src/model/rows'
import { jsonLine, textLine } from '../src/run/save'

const row: EventRow = {
  type: 'event',
  seq: 0,
  id: '1-1-1',
  kind: 'output',
  source: 'stdout',
  backend: 'redis',
  ts: 0,
  form: 'json',
  text: '{"id":12345678901234567890}',
  level: -1,
  message: null,
  writes: 1,
}

test('what is saved as NDJSON is data to the letter', () => {
  expect(jsonLine(row)).toBe(
    '{"id":"1-1-1","kind":"output","source":"stdout","ts":"1970-01-01T00:00:00.000Z","data":{"id":12345678901234567890}}',
  )
  const text = { ...row, form: 'text', text: '\u001b[1ma"\n' } as const
  expect((JSON.parse(jsonLine(text)) as { data: string }).data).toBe(text.text)
})

test('what is saved as text has no colours', () => {
  const line = textLine({ ...row, form: 'text', text: '\u001b[31mred\u001b[0m' })
  expect(line).toBe('1970-01-01T00:00:00.000Z output stdout: red')
})
