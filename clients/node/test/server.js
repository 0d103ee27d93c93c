// A real redis-server for each test, with the function loaded.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { createClient } from 'redis'

const LIBRARY = new URL('../../../actors/src/redis/runcast.lua', import.meta.url)

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

/** A redis-server that a test stops and starts. */
export class Server {
  static async start({ load = true } = {}) {
    const server = new Server()
    server.port = await freePort()
    server.url = `redis://127.0.0.1:${server.port}`
    server.directory = await mkdtemp(join(tmpdir(), 'runcast-node-'))
    await server.run()
    if (load) await server.load()
    return server
  }

  async run() {
    const options = ['--port', this.port, '--bind', '127.0.0.1', '--save', '', '--dir', this.directory]
    this.process = spawn('redis-server', options.map(String), { stdio: ['ignore', 'pipe', 'inherit'] })
    // Its log says when it listens.
    for await (const chunk of this.process.stdout) {
      if (chunk.toString().includes('Ready to accept connections')) break
    }
    this.admin = createClient({ url: this.url })
    this.admin.on('error', () => {})
    await this.admin.connect()
  }

  async load() {
    await this.admin.sendCommand(['FUNCTION', 'LOAD', await readFile(LIBRARY, 'utf8')])
  }

  async kill() {
    this.admin.destroy()
    this.process.kill('SIGKILL')
    await once(this.process, 'exit')
  }

  async stop() {
    await this.kill()
    await rm(this.directory, { recursive: true })
  }

  /** The run's events: kind, source, data, how many were lost before. */
  async entries(runId = '42') {
    const entries = await this.admin.xRange(`run:{${runId}}:stream`, '-', '+')
    return entries.map(({ message }) => [message.k, message.s, message.d, Number(message.l ?? 0)])
  }
}
