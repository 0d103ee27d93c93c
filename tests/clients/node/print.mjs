// Prints events as lines of JSON; shared by the clients.

/** Every event the contract knows: an EventSource hears only what it is told to. */
export const EVENTS = [
  'output', 'status', 'log', 'hello', 'heartbeat', 'cursor', 'gap', 'source', 'problem', 'goodbye',
  'end',
]

export function print(line) {
  process.stdout.write(JSON.stringify(line) + '\n')
}
