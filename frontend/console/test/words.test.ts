import { expect, test, vi } from 'vitest'
import { RateMeter } from '../src/model/rate-meter'
import { elapsed, longSpan, span, statusTone } from '../src/model/words'

test('times are said shortly', () => {
  expect([0, 59_400, 61_000, 7_200_000, 200_000_000].map(span)).toEqual([
    '0 s',
    '59 s',
    '1 min',
    '2 h',
    '2 d',
  ])
  expect(longSpan(133_000)).toBe('2 min 13 s')
  expect(elapsed(3_723_456)).toBe('+1:02:03.456')
})

test('statuses have a colour, in any case', () => {
  expect(['COMPLETED', 'failed', 'canceled', null, 'running'].map((s) => statusTone(s))).toEqual([
    'good',
    'bad',
    'idle',
    'idle',
    'live',
  ])
})

test('rates go by the broker’s clock, and replayed events by their own time', () => {
  vi.useFakeTimers({ now: 1_000_000_000 })
  const meter = new RateMeter()
  // The broker's clock is an hour ahead.
  const now = 1_000_000_000 + 3_600_000
  for (let ago = 100; ago > 0; ago -= 1) {
    for (let i = 0; i < ago; i += 1) meter.count(now - ago * 1000)
  }
  const seconds = meter.seconds()
  expect(seconds).toHaveLength(59)
  expect(seconds.at(-1)).toBe(2)
  expect(seconds[0]).toBe(60)
  vi.advanceTimersByTime(10_000)
  expect(meter.seconds().slice(-9)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0])
  vi.useRealTimers()
})
