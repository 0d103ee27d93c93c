"""``AsyncRun`` against a real Redis."""

from __future__ import annotations

import asyncio
import json

import pytest
import redis

import runcast
from conftest import Server


def test_calls_at_once_keep_their_order(server: Server) -> None:
    async def main() -> None:
        async with runcast.AsyncRun("42", server.url) as run:
            await asyncio.gather(*(run.output(n) for n in range(200)))
            await run.log("warn", "late", batch=7)

    asyncio.run(main())
    entries = server.entries()
    assert [data for _, _, data, _ in entries[:200]] == [str(n) for n in range(200)]
    assert json.loads(entries[200][2]) == {"level": "warn", "msg": "late", "batch": 7}
    assert entries[201][2] == '"completed"'
    assert all(lost == 0 for *_, lost in entries)


def test_a_cancelled_task_says_so(server: Server) -> None:
    async def work(ready: asyncio.Event) -> None:
        async with runcast.AsyncRun("42", server.url):
            ready.set()
            await asyncio.Event().wait()

    async def main() -> None:
        ready = asyncio.Event()
        task = asyncio.create_task(work(ready))
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert server.entries() == [("status", "", '"cancelled"', 0)]


def test_a_broken_connection_doubles_nothing(server: Server) -> None:
    async def main() -> None:
        killer = redis.Redis(port=server.port)
        async with runcast.AsyncRun("42", server.url) as run:
            for n in range(100):
                task = asyncio.create_task(run.output(n))
                await asyncio.sleep(0)
                killer.client_kill_filter(_type="normal", skipme=True)
                await task
        killer.close()

    asyncio.run(main())
    entries = server.entries()
    assert [data for _, _, data, _ in entries[:-1]] == [str(n) for n in range(100)]
    assert all(lost == 0 for *_, lost in entries)
