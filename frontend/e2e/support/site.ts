/** Serves the test's own pages, from an origin that is not the broker's. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, normalize } from 'node:path'

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain',
}

export class Site {
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  /** Serves the files of a directory. */
  static async start(directory: string): Promise<Site> {
    const server = createServer((request, response) => {
      const { pathname } = new URL(request.url ?? '/', 'http://site')
      const path = join(directory, normalize(pathname))
      const file = pathname.endsWith('/') ? join(path, 'index.html') : path
      readFile(file).then(
        (body) => {
          const type = TYPES[extname(file)] ?? 'application/octet-stream'
          response.writeHead(200, { 'Content-Type': type }).end(body)
        },
        () => response.writeHead(404).end(),
      )
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Site(server)
  }

  get url(): string {
    const { port } = this.#server.address() as AddressInfo
    // Web Locks need a secure context, which localhost counts as.
    return `http://localhost:${port}`
  }

  async end(): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    await once(this.#server, 'close')
  }
}
