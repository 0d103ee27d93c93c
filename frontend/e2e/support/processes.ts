/** Programs that a test starts, and that end with it. */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'

/**
 * Returns a port that is free now, and that no connection gets by itself
 * meanwhile: those are of the kernel's own range, 32768 and up.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 20_000)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    server.close()
    await once(server, 'close')
    return port
  }
}

/** Waits until `look` gives something true. */
export async function eventually<T>(
  what: string,
  look: () => Promise<T> | T,
  timeoutMs = 20_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const got = await look()
    if (got) return got
    if (Date.now() > deadline) throw new Error(`never came true: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** A running program, and the last of what it said. */
export class Program {
  readonly child: ChildProcess
  readonly #name: string
  #said = ''

  constructor(command: string, args: string[], options: SpawnOptions = {}) {
    this.#name = command
    this.child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
    const keep = (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString()).slice(-20_000)
    }
    this.child.stdout?.on('data', keep)
    this.child.stderr?.on('data', keep)
  }

  get isOver(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  /** Waits until `ready`; says what the program said if it ends before. */
  async untilReady(ready: () => Promise<boolean>): Promise<void> {
    await eventually(`${this.#name} is ready`, () => {
      if (this.isOver) throw new Error(`${this.#name} has ended:\n${this.#said}`)
      return ready()
    })
  }

  /** Ends it, and waits for that. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.isOver) return
    const over = once(this.child, 'exit')
    this.child.kill(signal)
    await over
  }
}
