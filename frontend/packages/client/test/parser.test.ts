/** The parser, with the cases that the broker's encoder is tested with, too. */
import { describe, expect, test } from 'vitest'
import { EventStreamParser, type StreamMessage } from '../src/parser.js'
import fixtures from './fixtures/event-stream.json' with { type: 'json' }

interface Case {
  name: string
  text?: string
  base64?: string
  messages: { event: string; data: string; id: string | null }[]
  retry?: number
  last_event_id?: string
}

const encoder: Case[] = fixtures.encoder
const cases: Case[] = [...encoder, ...fixtures.reader]

function bytesOf({ text, base64 }: Case): Uint8Array {
  return text === undefined
    ? new Uint8Array(Buffer.from(base64 ?? '', 'base64'))
    : new TextEncoder().encode(text)
}

/** Parses pieces, and returns all that was said. */
function parse(pieces: Uint8Array[]) {
  const messages: StreamMessage[] = []
  let retry: number | undefined
  const parser = new EventStreamParser({
    onMessage: (message) => messages.push(message),
    onRetry: (milliseconds) => (retry = milliseconds),
  })
  for (const piece of pieces) parser.push(piece)
  return { messages, retry, lastEventId: parser.lastEventId }
}

function expectCase(each: Case, pieces: Uint8Array[]) {
  const wanted = each.messages.map(({ event, data, id }) => ({ event, data, id: id ?? undefined }))
  const { messages, retry, lastEventId } = parse(pieces)
  expect(messages).toEqual(wanted)
  expect(retry).toBe(each.retry)
  const lastId = wanted.findLast(({ id }) => id !== undefined)?.id ?? ''
  expect(lastEventId).toBe(each.last_event_id ?? lastId)
}

test('the file has cases', () => {
  expect(cases.length).toBeGreaterThan(40)
})

describe.each(cases)('$name', (each) => {
  const bytes = bytesOf(each)

  test('in one piece', () => expectCase(each, [bytes]))

  test('byte by byte, with empty pieces between', () => {
    const pieces = [...bytes].flatMap((byte) => [Uint8Array.of(byte), new Uint8Array()])
    expectCase(each, pieces)
  })

  test('cut in two at every place', () => {
    for (let at = 0; at <= bytes.length; at += 1) {
      expectCase(each, [bytes.subarray(0, at), bytes.subarray(at)])
    }
  })

  test('cut in three at every two places', () => {
    const short = bytes.subarray(0, 60)
    const whole = parse([short])
    for (let a = 0; a <= short.length; a += 1) {
      for (let b = a; b <= short.length; b += 1) {
        const pieces = [short.subarray(0, a), short.subarray(a, b), short.subarray(b)]
        expect(parse(pieces)).toEqual(whole)
      }
    }
  })
})

test('all cases of the encoder after one another', () => {
  const text = encoder.map((each) => each.text).join('')
  const { messages } = parse([new TextEncoder().encode(text)])
  const wanted = encoder.flatMap((each) => each.messages)
  expect(messages.map(({ data }) => data)).toEqual(wanted.map(({ data }) => data))
})

test('a huge event in small pieces takes time in proportion to its length', () => {
  const length = 16 * 1024 * 1024
  const piece = new Uint8Array(16 * 1024).fill(0x61)
  const pieces = Array.from({ length: length / piece.length }, () => piece)
  const encoder = new TextEncoder()
  const begun = performance.now()
  const { messages } = parse([
    encoder.encode('event: output\ndata: '),
    ...pieces,
    encoder.encode('\nid: 1\n\n'),
  ])
  expect(messages).toHaveLength(1)
  expect(messages[0]?.data.length).toBe(length)
  expect(messages[0]?.id).toBe('1')
  // A parser that looks through what it has again for every piece takes minutes.
  expect(performance.now() - begun).toBeLessThan(5_000)
})

test('many short lines with CR LF are searched once', () => {
  const text = 'data: x\r\n\r\n'.repeat(200_000) + 'data: y\n\n'.repeat(200_000)
  const begun = performance.now()
  expect(parse([new TextEncoder().encode(text)]).messages).toHaveLength(400_000)
  expect(performance.now() - begun).toBeLessThan(5_000)
})

test.each(['data: aaaaaaaaaaaaaaaa', 'data: aaaaaaaa\ndata: aaaaaaaa', ':aaaaaaaaaaaaaaaa'])(
  'an event without an end is refused, not held: %j',
  (text) => {
    const parser = new EventStreamParser({ onMessage: () => undefined, lengthMax: 12 })
    expect(() => parser.push(new TextEncoder().encode(text))).toThrow(RangeError)
  },
)
