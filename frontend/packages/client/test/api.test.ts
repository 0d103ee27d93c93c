/** The routes beside the stream. */
import { expect, test } from 'vitest'
import { RuncastClient } from '../src/index.js'

interface Sent {
  url: string
  method: string | undefined
  headers: Record<string, string>
  body: unknown
}

/** A client whose requests are kept, and answered with `status` and `body`. */
function client(status: number, body: unknown) {
  const sent: Sent[] = []
  const api = new RuncastClient({
    baseUrl: 'http://broker/',
    token: 'secret',
    fetch: (input, init) => {
      const { method, headers, body: text } = init ?? {}
      const url = input as string
      sent.push({ url, method, headers: headers as Record<string, string>, body: text })
      init?.signal?.throwIfAborted()
      return Promise.resolve(Response.json(body, { status }))
    },
  })
  return { api, sent }
}

test.each<[string, (api: RuncastClient) => Promise<unknown>]>([
  ['/api/v1/config', (api) => api.config()],
  ['/health', (api) => api.health()],
  ['/api/v1/runs', (api) => api.runs()],
  ['/api/v1/runs?after=41&limit=5', (api) => api.runs({ after: '41', limit: 5 })],
  ['/api/v1/runs/a%2Fb', (api) => api.run('a/b')],
  ['/api/v1/runs/a%2Fb/explain', (api) => api.explain('a/b')],
])('GET %s', async (path, call) => {
  const { api, sent } = client(200, { any: 'thing' })
  expect(await call(api)).toEqual({ any: 'thing' })
  expect(sent).toEqual([
    {
      url: `http://broker${path}`,
      method: undefined,
      headers: { Authorization: 'Bearer secret' },
      body: undefined,
    },
  ])
})

test('history gives the events as a stream does', async () => {
  const data = { run_id: '42', kind: 'output', source: 's', ts: 't', backend: 'redis', data: 1 }
  const gap = { after: null, before: '1-2-3', missed: 2, reason: 'producer' }
  const { api, sent } = client(200, {
    events: [
      { event: 'gap', id: null, data: gap },
      { event: 'output', id: '1-2-3', data },
    ],
    next: '1-2-3',
    previous: null,
    gap,
  })
  const page = await api.history('42', {
    before: '1-9-9',
    limit: 2,
    kinds: ['output', 'log'],
    sources: ['s'],
    logLevel: 'warn',
  })
  expect(sent[0]?.url).toBe(
    'http://broker/api/v1/runs/42/events?before=1-9-9&limit=2&kinds=output%2Clog&sources=s&log_level=warn',
  )
  expect(page).toEqual({
    events: [
      { type: 'gap', ...gap },
      { type: 'output', id: '1-2-3', ...data },
    ],
    next: '1-2-3',
    previous: null,
    gap: { type: 'gap', ...gap },
  })
})

test('publish posts a line for each event, under a key', async () => {
  const { api, sent } = client(202, { ids: ['1-1-1', '1-2-2'], errors: [] })
  const events = [
    { kind: 'output', data: { text: 'a\nb' } },
    { kind: 'status', data: 'completed' },
  ] as const
  await api.publish('42', events, { idempotencyKey: 'k1', restart: true })
  await api.publish('42', { kind: 'log', source: 'x', data: null })
  await api.publishText('42', 'a\nb', { kind: 'output', source: 'make' })
  expect(sent).toMatchObject([
    {
      url: 'http://broker/api/v1/runs/42/events?restart=true',
      method: 'POST',
      headers: { 'Content-Type': 'application/x-ndjson', 'Idempotency-Key': 'k1' },
      body: '{"kind":"output","data":{"text":"a\\nb"}}\n{"kind":"status","data":"completed"}',
    },
    {
      url: 'http://broker/api/v1/runs/42/events',
      body: '{"kind":"log","source":"x","data":null}',
    },
    {
      url: 'http://broker/api/v1/runs/42/events?kind=output&source=make',
      headers: { 'Content-Type': 'text/plain' },
      body: 'a\nb',
    },
  ])
  expect(sent[1]?.headers).not.toHaveProperty('Idempotency-Key')
})

test('a failure has the words of the broker', async () => {
  const problem = { type: 'urn:x', title: 'Closed', status: 409, detail: 'the run is over' }
  const { api } = client(409, problem)
  await expect(api.publish('42', { kind: 'output' })).rejects.toMatchObject({
    name: 'RuncastError',
    code: 'http',
    status: 409,
    problem,
    message: 'the broker answered 409: the run is over',
  })
})

test('what aborts a call is what it throws', async () => {
  const { api } = client(200, {})
  const reason = new Error('gone')
  await expect(api.runs({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
})
