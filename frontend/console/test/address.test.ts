import { expect, test, vi } from 'vitest'

vi.stubGlobal('addEventListener', vi.fn())
vi.stubGlobal('location', { pathname: '/', search: '' })
const { isRunId, readAddress, writeAddress } = await import('../src/model/address')

test('an address says what is shown, and is read as it was written', () => {
  const address = { run: 'a.b_c-1', backend: 'kubectl', event: '~00c0-17~1-2-3' } as const
  expect(readAddress(writeAddress(address))).toEqual(address)
  expect(readAddress('?run=42&backend=files')).toEqual({ run: '42', backend: null, event: null })
  expect(writeAddress({ run: null, backend: null, event: null })).toBe('/')
})

test('run ids are those that the broker takes', () => {
  const good = ['4', 'a-b', 'A.b_c', 'x'.repeat(128)]
  const bad = ['', '-a', 'a-', 'a b', 'ä', 'x'.repeat(129), '../a']
  expect(good.map(isRunId)).toEqual(good.map(() => true))
  expect(bad.map(isRunId)).toEqual(bad.map(() => false))
})
