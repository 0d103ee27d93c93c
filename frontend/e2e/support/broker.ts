/** A real broker of one test. */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually, freePort, Program } from './processes.js'

const REPOSITORY = join(import.meta.dirname, '../../..')

/** Returns the broker that was built, or says how to build it. */
function program(): string {
  const target = process.env.CARGO_TARGET_DIR ?? join(REPOSITORY, 'target')
  const path = process.env.RUNCAST_TEST_BROKER ?? join(target, 'debug/runcast')
  if (!existsSync(path)) throw new Error(`${path} is missing: cargo build --package runcast`)
  return path
}

export type Settings = Record<string, string>

export class Broker {
  readonly port: number
  readonly #dir: string
  readonly #settings: Settings
  #program: Program | undefined

  private constructor(port: number, dir: string, settings: Settings) {
    this.port = port
    this.#dir = dir
    this.#settings = settings
  }

  /** Starts a broker; settings are written `section.key`. A free port by default. */
  static async start(settings: Settings = {}, port?: number): Promise<Broker> {
    const dir = await mkdtemp(join(tmpdir(), 'runcast-broker-'))
    const broker = new Broker(port ?? (await freePort()), dir, {
      'cors.allowed_origins': '*',
      'retry.min': '100ms',
      'retry.max': '200ms',
      'runs.end_grace': '200ms',
      ...settings,
    })
    await broker.restart()
    return broker
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Starts it anew on its port. */
  async restart(): Promise<void> {
    const env: NodeJS.ProcessEnv = {}
    for (const [name, value] of Object.entries(process.env)) {
      if (!name.startsWith('RUNCAST_')) env[name] = value
    }
    for (const [key, value] of Object.entries(this.#settings)) {
      env[`RUNCAST__${key.toUpperCase().replace('.', '__')}`] = value
    }
    env.RUNCAST__SERVER__BIND = `127.0.0.1:${this.port}`
    this.#program = new Program(program(), ['serve'], { cwd: this.#dir, env })
    await this.#program.untilReady(async () => {
      try {
        return (await fetch(`${this.url}/health/ready`)).ok
      } catch {
        return false
      }
    })
  }

  async kill(): Promise<void> {
    await this.#program?.end('SIGKILL')
  }

  /** As an orchestrator ends it. */
  async terminate(): Promise<void> {
    await this.#program?.end('SIGTERM')
  }

  async end(): Promise<void> {
    await this.kill()
    await rm(this.#dir, { recursive: true, force: true })
  }

  /** Returns the sum of a metric's series. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text()
    const lines = text.split('\n').filter((line) => line.startsWith(name))
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  }

  /** Waits until so many streams are open. */
  async untilStreams(count: number): Promise<void> {
    await eventually(`${count} streams are open`, async () => {
      return (await this.metric('runcast_sessions{')) === count
    })
  }
}
