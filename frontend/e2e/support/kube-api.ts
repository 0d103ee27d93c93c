/**
 * A stand-in for the Kubernetes API server: as much of it as kubectl asks for,
 * with one pod for each run, whose log the test writes.
 */
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

interface Pod {
  name: string
  lines: string[]
  exitCode: number | null
  followers: Set<ServerResponse>
}

const STARTED = '2026-11-23T20:00:00Z'

export class KubeApi {
  readonly #pods = new Map<string, Pod>()
  readonly #server: Server
  readonly #dir: string

  private constructor(dir: string) {
    this.#dir = dir
    this.#server = createServer((request, response) => this.#answer(request, response))
  }

  static async start(): Promise<KubeApi> {
    const api = new KubeApi(await mkdtemp(join(tmpdir(), 'runcast-kube-')))
    api.#server.listen(0, '127.0.0.1')
    await once(api.#server, 'listening')
    const { port } = api.#server.address() as AddressInfo
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'c',
      clusters: [{ name: 'c', cluster: { server: `http://127.0.0.1:${port}` } }],
      users: [{ name: 'u', user: { token: 'secret' } }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    }
    await writeFile(api.kubeconfig, JSON.stringify(config))
    return api
  }

  get kubeconfig(): string {
    return join(this.#dir, 'config')
  }

  async end(): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    await rm(this.#dir, { recursive: true, force: true })
  }

  addPod(run: string): void {
    const pod = { name: `pod-${run}`, lines: [], exitCode: null, followers: new Set<never>() }
    this.#pods.set(run, pod)
  }

  /** Writes a line into the log of a run's pod. */
  log(run: string, text: string): void {
    const pod = this.#pod(run)
    const at = new Date(Date.parse(STARTED) + pod.lines.length * 1000)
    const line = `${at.toISOString().replace('Z', '000000Z')} ${text}\n`
    pod.lines.push(line)
    for (const follower of pod.followers) follower.write(line)
  }

  /** Ends the pod. */
  finish(run: string, code = 0): void {
    const pod = this.#pod(run)
    pod.exitCode = code
    for (const follower of pod.followers) follower.end()
  }

  #pod(run: string): Pod {
    const pod = this.#pods.get(run)
    if (!pod) throw new Error(`no pod of run ${run}`)
    return pod
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '/', 'http://kube')
    const parts = url.pathname.split('/').filter(Boolean)
    const name = parts[5]
    const found = [...this.#pods].find(([, pod]) => pod.name === name)
    if (url.pathname === '/version')
      json(response, { major: '1', minor: '32', gitVersion: 'v1.32.0' })
    else if (url.pathname === '/api') json(response, { kind: 'APIVersions', versions: ['v1'] })
    else if (url.pathname === '/apis')
      json(response, { kind: 'APIGroupList', apiVersion: 'v1', groups: [] })
    else if (url.pathname === '/api/v1') json(response, RESOURCES)
    else if (parts[4] === 'pods' && !name) {
      const run = url.searchParams.get('labelSelector')?.split('=')[1]
      const items = [...this.#pods]
        .filter(([of]) => of === run)
        .map(([of, pod]) => podJson(of, pod))
      json(response, {
        kind: 'PodList',
        apiVersion: 'v1',
        metadata: { resourceVersion: '1' },
        items,
      })
    } else if (found && parts[6] === 'log') sendLog(found[1], url.searchParams, response)
    else if (found) json(response, podJson(...found))
    else json(response, NOT_FOUND, 404)
  }
}

function sendLog(pod: Pod, query: URLSearchParams, response: ServerResponse): void {
  const since = Date.parse(query.get('sinceTime') ?? '') || 0
  response.writeHead(200, { 'Content-Type': 'text/plain' }).flushHeaders()
  for (const line of pod.lines) {
    if (Date.parse(line.slice(0, 30)) >= since) response.write(line)
  }
  if (query.get('follow') !== 'true' || pod.exitCode !== null) {
    response.end()
    return
  }
  pod.followers.add(response)
  response.on('close', () => pod.followers.delete(response))
}

function json(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body))
}

const NOT_FOUND = {
  kind: 'Status',
  apiVersion: 'v1',
  metadata: {},
  status: 'Failure',
  message: 'not found',
  reason: 'NotFound',
  code: 404,
}

const RESOURCES = {
  kind: 'APIResourceList',
  apiVersion: 'v1',
  groupVersion: 'v1',
  resources: [
    {
      name: 'pods',
      singularName: '',
      namespaced: true,
      kind: 'Pod',
      verbs: ['get', 'list', 'watch'],
      shortNames: ['po'],
    },
    { name: 'pods/log', singularName: '', namespaced: true, kind: 'Pod', verbs: ['get'] },
  ],
}

function podJson(run: string, { name, exitCode }: Pod) {
  const state =
    exitCode === null
      ? { running: { startedAt: STARTED } }
      : { terminated: { exitCode, startedAt: STARTED, finishedAt: STARTED } }
  const phase = exitCode === null ? 'Running' : exitCode === 0 ? 'Succeeded' : 'Failed'
  return {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: { name, namespace: 'default', uid: `uid-${name}`, labels: { 'run-id': run } },
    spec: { containers: [{ name: 'main', image: 'i' }] },
    status: {
      phase,
      containerStatuses: [
        {
          name: 'main',
          restartCount: 0,
          ready: true,
          image: 'i',
          imageID: 'i',
          state,
          lastState: {},
        },
      ],
    },
  }
}
