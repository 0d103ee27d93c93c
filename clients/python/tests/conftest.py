"""A real redis-server for each test, with the function loaded."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import time
from typing import Any, Iterator, List

import pytest
import redis

import runcast

LIBRARY = pathlib.Path(__file__).parents[3] / "actors/src/redis/runcast.lua"


def free_port() -> int:
    """A port nothing listens on; a cluster's bus port, 10,000 above, exists."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if port < 55_000:
            return port


class Server:
    """A redis-server that a test stops and starts."""

    def __init__(self, directory: pathlib.Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--dir", str(directory), *options]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
                    return
            except redis.ConnectionError:
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.01)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def load(self) -> None:
        with redis.Redis(port=self.port) as client:
            runcast.load_function(client, LIBRARY)

    def entries(self, run_id: str = "42") -> List[Any]:
        """The run's events: kind, source, data, how many were lost before."""
        with redis.Redis(port=self.port, decode_responses=True) as client:
            stream: Any = client.xrange(f"run:{{{run_id}}}:stream")
        return [
            (fields["k"], fields["s"], fields["d"], int(fields.get("l", 0)))
            for _, fields in stream
        ]


@pytest.fixture
def bare(tmp_path: pathlib.Path) -> Iterator[Server]:
    """A server without the function."""
    server = Server(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def server(bare: Server) -> Server:
    """A server as a broker leaves it."""
    bare.load()
    return bare
