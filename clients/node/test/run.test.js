// `Run` against a real Redis.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { Redis } from 'ioredis'
import { createClient } from 'redis'

import { Run } from '../index.js'
import { Server } from './server.js'

/** A test with a server of its own. */
function served(name, work, options) {
  test(name, { timeout: 60_000 }, async () => {
    const server = await Server.start(options)
    try {
      await work(server)
    } finally {
      await server.stop()
    }
  })
}

const numbers = length => Array.from({ length }, (_, n) => String(n))
const data = entries => entries.map(([, , text]) => text)
const lost = entries => entries.reduce((sum, [, , , count]) => sum + count, 0)

served('two lines publish', async server => {
  const run = await Run.open('42', { url: server.url })
  const ids = [await run.output({ step: 1 }), await run.output('text\n', 'stderr')]
  assert.deepEqual(ids.map(id => id.split('-')[1]), ['1', '2'])
  assert.deepEqual(await server.entries(), [
    ['output', 'stdout', '{"step":1}', 0],
    ['output', 'stderr', '"text\\n"', 0],
  ])
  await run.close()
})

served('an echo prints what is published', async server => {
  const printed = []
  const { write } = process.stdout
  process.stdout.write = text => printed.push(text) > 0
  try {
    const run = await Run.open('42', { url: server.url, echo: true })
    await run.output('text')
    await run.status('running')
    await run.output({ step: 1 })
    await run.close()
  } finally {
    process.stdout.write = write
  }
  assert.deepEqual(printed.filter(text => text.startsWith('"') || text.startsWith('{')), ['"text"\n', '{"step":1}\n'])
})

served('data is sent as it is', async server => {
  const run = await Run.open('42', { url: server.url })
  for (const value of ['123', 123, null, [1.5, true], 'ü🚀', Buffer.from('raw \x1b[31m')]) await run.output(value)
  await assert.rejects(run.output(undefined), TypeError)
  await assert.rejects(run.output(10n), TypeError)
  await run.log('warn', 'late', { batch: 7 })
  const entries = await server.entries()
  assert.deepEqual(data(entries), [
    '"123"', '123', 'null', '[1.5,true]', '"ü🚀"', 'raw \x1b[31m', '{"level":"warn","msg":"late","batch":7}',
  ])
  assert.equal(lost(entries), 0)
  await run.close()
})

served('calls that nobody awaits keep their order', async server => {
  const run = await Run.open('42', { url: server.url })
  for (let n = 0; n < 300; n += 1) void run.output(n)
  await run.close()
  assert.deepEqual(data(await server.entries()), numbers(300))
})

served('a block tells how it ended', async server => {
  const { url } = server
  assert.equal(await Run.with('good', { url }, () => 7), 7)
  const failing = Run.with('bad', { url }, () => {
    throw new Error('x')
  })
  await assert.rejects(failing, /x/)
  await Run.with('told', { url }, run => run.status('failed', { exit_code: 2 }))
  assert.deepEqual(data(await server.entries('good')), ['"completed"'])
  assert.deepEqual(data(await server.entries('bad')), ['{"status":"failed","error":"Error: x"}'])
  assert.deepEqual(data(await server.entries('told')), ['{"status":"failed","exit_code":2}'])
})

served('what is refused is told and leaves no gap', async server => {
  const run = await Run.open('42', { url: server.url, options: ['MAXEVENT', 100, 'GRACE', 1] })
  await assert.rejects(run.output('x'.repeat(200)), { code: 'TOO_LARGE' })
  await run.output('small')
  await run.status('completed')
  const late = async () => {
    for (;;) await run.output('late')
  }
  await assert.rejects(late(), { code: 'CLOSED' })
  assert.equal(lost(await server.entries()), 0)
  const anew = await Run.open('42', { url: server.url, restart: true })
  await anew.output('again')
  await anew.output('more')
  assert.deepEqual(data(await server.entries()), ['"again"', '"more"'])
  await run.close()
  await anew.close()
})

for (const [name, make] of [
  ['redis', async url => { const client = createClient({ url }); client.on('error', () => {}); return client.connect() }],
  ['ioredis', async url => { const client = new Redis(url); client.on('error', () => {}); return client }],
]) {
  served(`a broken connection of ${name} doubles nothing`, async server => {
    const client = await make(server.url)
    try {
      const run = await Run.open('42', { client })
      const sent = numbers(200).map(n => run.output(Number(n)))
      const all = Promise.all(sent)
      // Told below.
      all.catch(() => {})
      // Cut as the next event is on its way, and not before one has got through
      // the last cut: a slow machine has time to connect.
      for (let next = 0; next < 190; next += 10) {
        await sent[next]
        await server.admin.sendCommand(['CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'])
      }
      const ids = await all
      assert.equal(new Set(ids).size, 200)
      const entries = await server.entries()
      assert.deepEqual(data(entries), numbers(200))
      assert.equal(lost(entries), 0)
      await run.close()
    } finally {
      client.disconnect?.()
    }
  })
}

served('an outage is waited out, and one that is too long is told', async server => {
  const run = await Run.open('42', { url: server.url, retryFor: 20_000 })
  const brief = await Run.open('43', { url: server.url, retryFor: 200 })
  await run.output('before')
  await brief.output('before')
  await server.kill()
  const during = run.output('during')
  await assert.rejects(brief.output('lost'), { code: 'NOT_PUBLISHED' })
  await server.run()
  await sleep(100)
  await server.load()
  await during
  assert.deepEqual(await server.entries(), [['output', 'stdout', '"during"', 1]])
  await run.close()
  await brief.close()
})

served('a newer process fences an older one', async server => {
  const options = { url: server.url, producer: 'worker' }
  const old = await Run.open('42', options)
  await old.output('old')
  await sleep(2)
  const young = await Run.open('42', options)
  await young.output('new')
  await assert.rejects(old.output('zombie'), { code: 'FENCED' })
  assert.deepEqual(data(await server.entries()), ['"old"', '"new"'])
  await old.close()
  await young.close()
})

served('a missing function is told', async server => {
  const run = await Run.open('42', { url: server.url })
  await assert.rejects(run.output('x'), { code: 'FUNCTION_MISSING' })
  await server.load()
  await run.output('x')
  assert.equal(lost(await server.entries()), 0)
  await run.close()
}, { load: false })

served('what waits is bounded', async server => {
  const run = await Run.open('42', { url: server.url })
  const sent = Array.from({ length: 10_001 }, (_, n) => run.output(n).catch(error => error.code))
  assert.equal((await Promise.all(sent)).at(-1), 'BUSY')
  assert.equal(lost(await server.entries()), 0)
  await run.close()
})

test('bad names are refused', async () => {
  for (const runId of [null, '', '-a', 'a/b', 'a'.repeat(129), 'ü', 'a\n']) {
    await assert.rejects(Run.open(runId), /run id/)
  }
  await assert.rejects(Run.open('42', { producer: 'a b' }), /producer/)
})

const PARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

async function traces(server) {
  const client = new Redis(server.url)
  const stream = await client.xrange('run:{42}:stream', '-', '+')
  client.disconnect()
  return stream.map(([, fields]) => fields[fields.indexOf('t') + 1] ?? null).map(text => (text?.startsWith('00-') ? text : null))
}

served('a trace goes along', async server => {
  const run = await Run.open('42', { url: server.url, traceparent: PARENT })
  await run.output(1)
  run.traceparent = `${PARENT} vendor=x`
  await run.output(2)
  for (const other of ['malformed', PARENT.slice(0, -1) + '0', undefined]) {
    run.traceparent = other
    await run.output(3)
  }
  await run.close()
  assert.deepEqual(await traces(server), [PARENT, `${PARENT} vendor=x`, null, null, null])
})

served('a function without traces takes the event', async server => {
  const library = await readFile(new URL('../../../actors/src/redis/runcast.lua', import.meta.url), 'utf8')
  const client = new Redis(server.url)
  await client.call('FUNCTION', 'LOAD', 'REPLACE', library.replaceAll("'TRACE'", "'LATER'"))
  client.disconnect()
  const run = await Run.open('42', { url: server.url, traceparent: PARENT })
  await run.output(1)
  await run.output(2)
  await run.close()
  assert.deepEqual(data(await server.entries()), ['1', '2'])
  assert.deepEqual(await traces(server), [null, null])
})
