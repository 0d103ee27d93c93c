import type { RunEvent } from '@runcast/client'
import { describe, expect, test } from 'vitest'
import { eventRow, levelOf, markText, overwritten, plainText, rowText } from '../src/model/rows'

const event = (more: Partial<RunEvent>): RunEvent => ({
  type: 'output',
  id: '1-1-1',
  run_id: '42',
  kind: 'output',
  source: 'stdout',
  ts: '2026-11-23T20:00:00.123Z',
  backend: 'redis',
  data: 'x',
  ...more,
})

describe('levels', () => {
  test.each([
    [{ level: 'warn' }, 3],
    [{ level: 'WARNING' }, 3],
    [{ level: 'critical' }, 5],
    [{ level: 10 }, 0],
    [{ level: 60 }, 5],
    [{ level: 35 }, 2],
    [{}, 2],
    ['text', 2],
    [null, 2],
    [{ level: 'loud' }, 2],
  ])('%j is level %i', (data, level) => {
    expect(levelOf(data)).toBe(level)
  })
})

describe('carriage returns', () => {
  test.each([
    ['10%\r20%\r30%', '30%'],
    ['\r30%', '30%'],
    ['30%\r', '30%'],
    ['longer\rab', 'abnger'],
    ['longer\r\u001b[Kab', '\u001b[Kab'],
    ['\u001b[31mred\u001b[0m\rgreen', 'green'],
    ['a\r\nb\r\n', 'a\nb\n'],
    ['plain', 'plain'],
  ])('%j shows %j', (text, shown) => {
    expect(overwritten(text)).toBe(shown)
  })
})

test('escape sequences are no part of what is searched and copied', () => {
  expect(plainText('\u001b[1;31mred\u001b[0m \u001b]8;;http://x\u0007link\u001b]8;;\u0007')).toBe(
    'red link',
  )
  expect(rowText(eventRow(event({ data: '\u001b[32m10%\r\u001b[32m20%' }), 0))).toBe('20%')
})

test('what a log and a status say stands first', () => {
  const log = eventRow(event({ kind: 'log', data: { level: 'error', msg: 'late', ms: 4 } }), 0)
  expect(log).toMatchObject({ level: 4, message: 'late', form: 'json' })
  const status = eventRow(event({ kind: 'status', source: '', data: { status: 'running' } }), 0)
  expect(status.message).toBe('running')
})

test('a gap says how many are missing, and why', () => {
  const gap = { type: 'gap', after: null, before: null, reason: 'trimmed' } as const
  expect(markText({ ...gap, missed: 1 })).toBe('1 event missing here: no longer kept')
  expect(markText({ ...gap, missed: 12_345 })).toContain('12,345 events')
  expect(markText({ ...gap, missed: null, reason: 'new' })).toBe('Events may be missing here: new')
})
