/** A real redis-server of one test, and a publisher to it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient, type RedisClientType } from 'redis'
import { eventually, freePort, Program } from './processes.js'

export class Redis {
  readonly port: number
  readonly #dir: string
  #program: Program | undefined
  #client: RedisClientType | undefined

  private constructor(port: number, dir: string) {
    this.port = port
    this.#dir = dir
  }

  static async start(): Promise<Redis> {
    const dir = await mkdtemp(join(tmpdir(), 'runcast-redis-'))
    const redis = new Redis(await freePort(), dir)
    await redis.restart()
    return redis
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`
  }

  /** Starts it on its port, empty. */
  async restart(): Promise<void> {
    const args = ['--port', String(this.port), '--bind', '127.0.0.1']
    const plain = ['--save', '', '--appendonly', 'no', '--dir', this.#dir]
    this.#program = new Program('redis-server', [...args, ...plain])
    const client = createClient({ url: this.url, socket: { reconnectStrategy: 50 } })
    client.on('error', () => undefined)
    this.#client = client
    await this.#program.untilReady(async () => {
      if (!client.isOpen) await client.connect()
      return (await client.ping()) === 'PONG'
    })
  }

  async kill(): Promise<void> {
    this.#client?.destroy()
    this.#client = undefined
    await this.#program?.end('SIGKILL')
  }

  async end(): Promise<void> {
    await this.kill()
    await rm(this.#dir, { recursive: true, force: true })
  }

  get client(): RedisClientType {
    if (!this.#client) throw new Error('redis is down')
    return this.#client
  }

  /** Waits until a broker has loaded the function that publishes durably. */
  async untilLoaded(): Promise<void> {
    await eventually('the function is loaded', async () => {
      return (await this.client.functionList({ LIBRARYNAME: 'runcast' })).length > 0
    })
  }

  /** Publishes so that only who listens now hears it. */
  async publish(channel: string, data: unknown): Promise<void> {
    await this.client.publish(channel, typeof data === 'string' ? data : JSON.stringify(data))
  }

  /** Publishes durably, and returns the id. */
  async append(run: string, kind: string, data: unknown): Promise<string> {
    const text = typeof data === 'string' ? data : JSON.stringify(data)
    const [word, id] = (await this.client.fCall('runcast_publish', {
      keys: [`run:{${run}}:stream`, `run:{${run}}:meta`],
      arguments: [run, kind, kind === 'status' ? '' : 'stdout', text],
    })) as [string, string]
    if (word !== 'OK') throw new Error(`not published: ${word}`)
    return id
  }

  /** Publishes `{"n":from}` to `{"n":to}` durably. */
  async appendNumbers(run: string, from: number, to: number): Promise<void> {
    for (let n = from; n <= to; n += 1) await this.append(run, 'output', { n })
  }
}
