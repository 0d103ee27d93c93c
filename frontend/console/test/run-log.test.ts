import type { EventKind, RunEvent } from '@runcast/client'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { ALL, RunLog } from '../src/model/run-log'
import { rowText, type EventRow } from '../src/model/rows'
import { Search } from '../src/model/search'

let next = 0

function event(data: unknown, more: Partial<RunEvent> = {}): RunEvent {
  next += 1
  const kind: EventKind = more.kind ?? 'output'
  return {
    type: kind,
    id: `1-${next}-1`,
    run_id: '42',
    kind,
    source: 'stdout',
    ts: new Date(next * 1000).toISOString(),
    backend: 'redis',
    data,
    ...more,
  }
}

const texts = (log: RunLog) => log.visible.map(rowText)

beforeEach(() => {
  next = 0
  vi.useFakeTimers()
  vi.stubGlobal('requestAnimationFrame', (run: () => void) => setTimeout(run, 16))
  vi.stubGlobal('cancelAnimationFrame', clearTimeout)
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

const log = (rows = 1_000, characters = 1_000_000) => new RunLog({ rows, characters })

test('listeners are told once per frame, however much comes', () => {
  const run = log()
  const told = vi.fn()
  run.subscribe(told)
  for (let i = 0; i < 100; i += 1) run.add([event(i)])
  expect(told).not.toHaveBeenCalled()
  vi.advanceTimersByTime(16)
  expect(told).toHaveBeenCalledTimes(1)
  vi.advanceTimersByTime(1_000)
  expect(told).toHaveBeenCalledTimes(1)
})

test('the oldest rows go, in any view, and are counted', () => {
  const run = log(100)
  run.setFilter({ ...ALL, kinds: new Set(['log']) })
  for (let i = 0; i < 250; i += 1) {
    run.add([event(i, { kind: i % 2 === 0 ? 'output' : 'log' })])
  }
  expect(run.rows.length).toBeLessThanOrEqual(100)
  expect(run.dropped + run.rows.length).toBe(250)
  expect(run.visible).toEqual(run.rows.filter((row) => (row as EventRow).kind === 'log'))
  run.setFilter(ALL)
  expect(run.visible).toBe(run.rows)
  expect(texts(run).at(-1)).toBe('249')
})

test('few but huge events are bounded, too', () => {
  const run = log(1_000, 10_000)
  for (let i = 0; i < 50; i += 1) run.add([event('x'.repeat(1_000))])
  expect(run.rows.length).toBeLessThanOrEqual(10)
  expect(run.dropped + run.rows.length).toBe(50)
})

test('filters by kind, level and source keep what stands between events', () => {
  const run = log()
  run.add([
    event('a'),
    event('b', { source: 'stderr' }),
    { type: 'gap', after: null, before: null, missed: 2, reason: 'slow_client' },
    event({ level: 'debug', msg: 'c' }, { kind: 'log' }),
    event({ level: 'error', msg: 'd' }, { kind: 'log' }),
    event('running', { kind: 'status', source: '' }),
  ])
  const count = (change: Partial<typeof ALL>) => {
    run.setFilter({ ...ALL, ...change })
    return texts(run)
  }
  expect(count({ kinds: new Set(['output']) })).toEqual(['a', 'b', expect.stringContaining('2 ev')])
  expect(count({ level: 3 }).join()).not.toContain('"c"')
  expect(count({ source: 'stderr' })).toEqual(['b', expect.anything(), 'running'])
})

test('progress lines of a source take each other’s place', () => {
  const run = log()
  run.add([
    event('start'),
    event('\r10%'),
    event('other', { source: 'stderr' }),
    event('\r20%'),
    event('\r30%'),
  ])
  expect(texts(run)).toEqual(['start', '30%', 'other'])
  expect((run.rows[1] as EventRow).writes).toBe(3)
  run.add([event('40%\r'), event('done'), event('next')])
  expect(texts(run)).toEqual(['start', '30%', 'other', 'done', 'next'])
  expect(run.total).toBe(8)
})

test('lines that end with CRLF stay lines, whoever sends them', () => {
  const run = log()
  const lines = ['line 1\r', 'line 2\r', 'tests: 50% of 4\r', 'lint: 80% of 9\r', '\r', 'last\r']
  run.add(lines.map((line) => event(line)))
  expect(texts(run)).toEqual(['line 1', 'line 2', 'tests: 50% of 4', 'lint: 80% of 9', '', 'last'])
  run.add([event('an LF only'), event('a CRLF\r')])
  expect(texts(run).slice(-2)).toEqual(['an LF only', 'a CRLF'])
})

test('a bar whose lines end with a carriage return takes its own place only', () => {
  const run = log()
  run.add([
    event('fetch\r'),
    event('[=>    ]  12% 1.2 MB\r'),
    event('[===>  ]  64% 7.9 MB\r'),
    event('[=====>] 100% 9.9 MB\r'),
    event('unpack\r'),
  ])
  expect(texts(run)).toEqual(['fetch', '[=====>] 100% 9.9 MB', 'unpack'])
  expect((run.rows[1] as EventRow).writes).toBe(3)
})

test('lines of a pod are never written over', () => {
  const run = log()
  run.add(['\r10%', '\r20%', '30%\r', '40%\r'].map((line) => event(line, { backend: 'kubectl' })))
  expect(texts(run)).toEqual(['10%', '20%', '30%', '40%'])
})

test('statuses that change are noted, repeated ones not', () => {
  const run = log()
  for (const word of ['running', 'running', 'saving', 'running']) {
    run.add([event({ status: word }, { kind: 'status', source: '' })])
  }
  expect(run.statuses.map(({ status }) => status)).toEqual(['running', 'saving', 'running'])
})

test('a search finds what is there and what comes, and steps round', () => {
  const run = log()
  for (let i = 0; i < 100; i += 1) run.add([event(i % 10 === 0 ? `Needle ${i}` : 'hay')])
  vi.advanceTimersByTime(16)
  const search = new Search(run, 'needle')
  const off = search.subscribe(() => undefined)
  vi.advanceTimersByTime(100)
  expect(search.matches).toHaveLength(10)
  expect(search.next(null, 1)).toBe(0)
  expect(search.next(0, 1)).toBe(10)
  expect(search.next(0, -1)).toBe(90)
  expect(search.next(90, 1)).toBe(0)
  run.add([event('a NEEDLE more')])
  vi.advanceTimersByTime(100)
  expect(search.matches.at(-1)).toBe(100)
  expect([search.has(100), search.has(99)]).toEqual([true, false])
  run.setFilter({ ...ALL, kinds: new Set(['log']) })
  vi.advanceTimersByTime(100)
  expect(search.matches).toEqual([])
  off()
})
