import { expect, test } from 'vitest'
import { parseExact, stringifyExact } from '../src/model/exact-json'

// Node 20 tells a reviver nothing of the source, so that there the long number is
// rounded, as everywhere; the browser tests have it whole.
test.each(['{"a":1,"b":[0.5,"12345678901234567890",null]}', '"1234567890123456 text"', '3'])(
  '%s is read and written to the letter',
  (text) => {
    expect(stringifyExact(parseExact(text))).toBe(text)
  },
)

test('a value that can be sent to another tab', () => {
  const value = parseExact('{"id":12345678901234567890,"n":9007199254740991}')
  expect(structuredClone(value)).toEqual(value)
})
