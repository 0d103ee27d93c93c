"""An event-stream server as it is usually written in Python, to compare with.

sse-starlette, redis.asyncio and uvicorn (uvloop, httptools) in one process. Each
client has a pattern subscription of its own, as in the examples of the libraries;
with --shared one subscription feeds a queue per client. It serves
/<anything>/runs/<run>/... from Redis channels run:<run>:... and says where it
listens on standard error.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator

import redis.asyncio
import uvicorn
import uvloop
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

# One connection to Redis a client.
CONNECTIONS_MAX = 20_000

# What a client may be behind before it loses messages.
QUEUE_MAX = 10_000

Event = dict[str, str]


class OwnSubscription:
    """A `PSUBSCRIBE` for each client."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client

    async def run(self) -> None:
        """Has nothing to do beside the clients."""

    async def events(self, run: str) -> AsyncIterator[Event]:
        async with self.client.pubsub() as subscription:
            await subscription.psubscribe(f"run:{run}:*")
            async for message in subscription.listen():
                if message["type"] == "pmessage":
                    yield {"event": "output", "data": message["data"]}


class SharedSubscription:
    """One `PSUBSCRIBE` for all, and a queue for each client."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        self.queues: dict[str, set[asyncio.Queue[str]]] = defaultdict(set)

    async def run(self) -> None:
        async with self.client.pubsub() as subscription:
            await subscription.psubscribe("run:*")
            async for message in subscription.listen():
                if message["type"] != "pmessage":
                    continue
                run = message["channel"].split(":")[1]
                for queue in self.queues.get(run, ()):
                    with contextlib.suppress(asyncio.QueueFull):
                        queue.put_nowait(message["data"])

    async def events(self, run: str) -> AsyncIterator[Event]:
        queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_MAX)
        self.queues[run].add(queue)
        try:
            while True:
                yield {"event": "output", "data": await queue.get()}
        finally:
            self.queues[run].discard(queue)
            if not self.queues[run]:
                del self.queues[run]


async def serve(redis_url: str, shared: bool) -> None:
    client = redis.asyncio.from_url(
        redis_url, decode_responses=True, max_connections=CONNECTIONS_MAX
    )
    source = SharedSubscription(client) if shared else OwnSubscription(client)

    async def stream(request: Request) -> EventSourceResponse:
        return EventSourceResponse(source.events(request.path_params["run"]))

    app = Starlette(routes=[Route("/api/v1/runs/{run}/stream/redis", stream)])
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    addr = "{}:{}".format(*listener.getsockname())
    print(json.dumps({"message": "listening", "addr": addr}), file=sys.stderr, flush=True)
    config = uvicorn.Config(app, log_level="error", access_log=False, backlog=4096)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(source.run())
        await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--shared", action="store_true")
    arguments = parser.parse_args()
    # The loop that `uvicorn` takes by itself.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.redis, arguments.shared))


if __name__ == "__main__":
    main()
