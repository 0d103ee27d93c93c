#!/usr/bin/env python3
"""Checks a running Runcast and its Redis from end to end.

Publishes a run to Redis, as agents do it, reads it back over SSE, and says for
each step whether it holds: events in order and unchanged, a heartbeat, going on
after the last event, and the end. Needs a broker, its Redis, and

    pip install redis httpx      (Redis 7 or newer, for the function it calls)

    scripts/test_redis_streaming.py
    scripts/test_redis_streaming.py --api http://runcast:8000 --redis redis://redis:6379

Exit code 0 if all holds, 1 if something does not, 2 if it cannot begin: broker
or Redis cannot be reached, or the two packages are missing. Leaves one run behind, named check-<time>, which Redis lets go of
after its usual time.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

try:
    import httpx
    import redis
except ModuleNotFoundError as error:
    print(f"cannot begin: {error}: pip install redis httpx", file=sys.stderr)
    sys.exit(2)

# What is published plainly: Redis keeps nothing of it.
PLAIN = {"plain": True}

# What is published durably; each comes back as it was sent.
PAYLOADS: list[tuple[str, bytes, object]] = [
    ("a JSON object", b'{"step":1,"loss":0.25}', {"step": 1, "loss": 0.25}),
    ("a JSON number", b"42", 42),
    ("plain text", "step 2 \u2028 \U0001f680".encode(), "step 2 \u2028 \U0001f680"),
    ("text with line breaks", b"a\r\nb\nc", "a\r\nb\nc"),
    ("text that looks like SSE", b"data: x\n\nevent: end\n\n", "data: x\n\nevent: end\n\n"),
    ("colours of a terminal", b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
]


class Failed(Exception):
    """A check that does not hold."""


@dataclass
class Event:
    """One event of a stream."""

    name: str
    data: dict
    id: str | None


@dataclass
class Report:
    """What was found, a line for each check."""

    failures: int = 0
    passed: int = 0

    def check(self, name: str, act: Callable[[], str | None]) -> None:
        """Runs one check and prints what came of it."""
        begun = time.monotonic()
        try:
            detail = act()
        except (Failed, httpx.HTTPError, redis.RedisError) as error:
            self.failures += 1
            print(f"FAIL  {name}: {error or type(error).__name__}")
            return
        except (LookupError, ValueError) as error:
            # A field is missing, or something is no JSON.
            self.failures += 1
            print(f"FAIL  {name}: what came is of another shape: {error!r}")
            return
        self.passed += 1
        took = time.monotonic() - begun
        print(f"ok    {name}{f': {detail}' if detail else ''} ({took * 1000:.0f} ms)")


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """Reads an event stream (WHATWG HTML 9.2.6), by its lines."""
    name, event_id = "", None
    data: list[str] = []
    for line in lines:
        if line == "":
            if data:
                yield Event(name or "message", json.loads("\n".join(data)), event_id)
            name, data, event_id = "", [], None
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
        elif key == "id":
            event_id = value


class Stream:
    """A run's stream, read event by event."""

    def __init__(
        self, check: "Check", last_event_id: str | None = None, timeout: float | None = None
    ) -> None:
        headers = {"Accept": "text/event-stream"} | check.headers
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        self._stack = contextlib.ExitStack()
        self._opening = httpx.stream(
            "GET", check.stream_url, headers=headers, timeout=timeout or check.timeout
        )

    def __enter__(self) -> "Stream":
        self.response = self._stack.enter_context(self._opening)
        if self.response.status_code == 200:
            self._events = parse(sse_lines(self.response.iter_text()))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def next(self, *wanted: str) -> Event:
        """Returns the next event that is one of `wanted`; others it passes over."""
        for event in self._events:
            if event.name == "problem":
                raise Failed(f"the broker says: {event.data.get('detail')}")
            if event.name in wanted:
                return event
        raise Failed(f"the stream ended before {' or '.join(wanted)}")

    def expect_nothing(self) -> None:
        """Waits until the broker closes; nothing may come before."""
        for event in self._events:
            raise Failed(f"after the end came {event.name}")


def sse_lines(pieces: Iterator[str]) -> Iterator[str]:
    """Splits text at CR, LF and CR LF alone: `str.splitlines` knows too many."""
    rest = ""
    for piece in pieces:
        rest += piece
        # A CR at the end may be half of a CR LF.
        held = "\r" if rest.endswith("\r") else ""
        text = rest.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        *lines, last = text.split("\n")
        rest = last + held
        yield from lines


class Check:
    """One run against one broker and one Redis."""

    def __init__(self, args: argparse.Namespace):
        self.api = args.api.rstrip("/")
        self.run = f"check-{time.time_ns() // 1_000_000}"
        self.redis = redis.Redis.from_url(args.redis, socket_timeout=5)
        self.headers = {"Authorization": f"Bearer {args.token}"} if args.token else {}
        self.timeout = args.timeout
        self.heartbeat_seconds = 30
        self.ids: list[str] = []
        self.end_id = ""

    @property
    def stream_url(self) -> str:
        return f"{self.api}/api/v1/runs/{self.run}/stream/redis"

    def publish(self, kind: str, payload: bytes) -> str:
        """Publishes durably, and returns the id."""
        keys = f"run:{{{self.run}}}:stream", f"run:{{{self.run}}}:meta"
        source = "" if kind == "status" else "stdout"
        args = self.run, kind, source, payload
        word, event_id = self.redis.fcall("runcast_publish", 2, *keys, *args)
        if word != b"OK":
            raise Failed(f"Redis answered {word.decode()}")
        return event_id.decode()

    def reach(self) -> None:
        """Raises if there is nothing to check."""
        self.redis.ping()
        config = httpx.get(f"{self.api}/api/v1/config", headers=self.headers, timeout=5)
        config.raise_for_status()
        self.heartbeat_seconds = config.json()["heartbeat_seconds"]
        print(f"      Runcast {config.json()['version']} at {self.api}, run {self.run}\n")

    def headers_are_right(self) -> str:
        with Stream(self) as stream:
            headers = stream.response.headers
            wanted = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
            for name, value in wanted.items():
                if headers.get(name) != value:
                    raise Failed(f"{name} is {headers.get(name)!r}, not {value!r}")
            if "no-transform" not in headers.get("cache-control", ""):
                raise Failed("cache-control lacks no-transform")
            hello = stream.next("hello")
            if hello.data["run_id"] != self.run:
                raise Failed(f"hello is of run {hello.data['run_id']}")
            return f"backend {hello.data['backend']}"

    def plain_is_live(self) -> str:
        """Publishes as an agent that knows nothing of Runcast."""
        with Stream(self) as stream:
            stream.next("hello")
            sent = time.monotonic()
            heard = self.redis.publish(f"run:{self.run}:output:stdout", json.dumps(PLAIN))
            if heard == 0:
                raise Failed("nobody listens on Redis: is this the broker's Redis?")
            event = stream.next("output")
            if event.data.get("data") != PLAIN:
                raise Failed(f"came as {event.data['data']!r}")
            return f"delivered in {(time.monotonic() - sent) * 1000:.1f} ms"

    def durable_is_whole(self) -> str:
        with Stream(self) as stream:
            stream.next("hello")
            stream.next("output")
            for name, payload, wanted in PAYLOADS:
                event_id = self.publish("output", payload)
                event = stream.next("output")
                if event.data["data"] != wanted:
                    raise Failed(f"{name} came as {event.data['data']!r}")
                if event.id != event_id:
                    raise Failed(f"{name} has the id {event.id}, not {event_id}")
                self.ids.append(event_id)
            event_id = self.publish("output", b"\xff\x00")
            event = stream.next("output")
            if event.data.get("data_base64") != "/wA=":
                raise Failed(f"bytes came as {event.data!r}")
            self.ids.append(event_id)
        return f"{len(self.ids)} events, each with its id"

    def replay_is_complete(self) -> str:
        with Stream(self) as stream:
            seen: list[str | None] = []
            while not seen or seen[-1] != self.ids[-1]:
                event = stream.next("output")
                # The plain one comes too, if the broker still has it.
                if event.data.get("data") != PLAIN:
                    seen.append(event.id)
        if seen != self.ids:
            raise Failed(f"came as {seen}, not {self.ids}")
        return f"{len(seen)} events, in order"

    def resume_is_exact(self) -> str:
        middle = len(self.ids) // 2
        missed = self.publish("output", b'{"while":"away"}')
        wanted = [*self.ids[middle + 1 :], missed]
        with Stream(self, self.ids[middle]) as stream:
            hello = stream.next("hello", "gap")
            if hello.name == "gap":
                raise Failed(f"a gap: {hello.data}")
            seen = [stream.next("output", "gap") for _ in wanted]
        if [event.id for event in seen] != wanted:
            raise Failed(f"came as {[event.id for event in seen]}, not {wanted}")
        self.ids.append(missed)
        return f"{len(wanted)} events after the last one seen, none twice"

    def history_is_the_same(self) -> str:
        url = f"{self.api}/api/v1/runs/{self.run}/events"
        answer = httpx.get(url, headers=self.headers, timeout=10)
        answer.raise_for_status()
        events = answer.json()["events"]
        ids = [event["id"] for event in events if event["data"].get("data") != PLAIN]
        if ids != self.ids:
            raise Failed(f"holds {ids}, not {self.ids}")
        return f"{len(ids)} events"

    def heartbeat_comes(self) -> str:
        limit = self.heartbeat_seconds + 5
        begun = time.monotonic()
        with Stream(self, self.ids[-1], timeout=limit) as stream:
            stream.next("hello")
            beat = stream.next("heartbeat")
        after = time.monotonic() - begun
        if after > limit:
            raise Failed(f"came after {after:.1f} s, not {self.heartbeat_seconds}")
        quiet = beat.data["last_event_ms"]
        return f"after {after:.1f} s of {self.heartbeat_seconds}, last event {quiet} ms before"

    def end_comes(self) -> str:
        with Stream(self, self.ids[-1]) as stream:
            stream.next("hello")
            self.publish("status", b'{"status":"Completed"}')
            stream.next("status")
            end = stream.next("end")
            if end.data["status"] != "completed":
                raise Failed(f"the status is {end.data['status']}")
            self.end_id = end.id or ""
            stream.expect_nothing()
        count = end.data["events"]
        return f"completed, {count} events" if count is not None else "completed"

    def end_is_final(self) -> str:
        with Stream(self, self.end_id) as stream:
            if stream.response.status_code != 204:
                raise Failed(f"who comes back is answered {stream.response.status_code}, not 204")
        return "who comes back is answered 204"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Checks a running Runcast and its Redis.")
    env = os.environ.get
    option = parser.add_argument
    api = env("RUNCAST_URL", "http://127.0.0.1:8000")
    url = env("RUNCAST__REDIS__URL", "redis://127.0.0.1:6379")
    option("--api", default=api, help="the broker (RUNCAST_URL)")
    option("--redis", default=url, help="its Redis (RUNCAST__REDIS__URL)")
    option("--token", default=env("RUNCAST_TOKEN"), help="a bearer token (RUNCAST_TOKEN)")
    option("--timeout", type=float, default=15, help="seconds to wait for an event (15)")
    option("--no-heartbeat", action="store_true", help="do not wait for a heartbeat")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    check, report = Check(args), Report()
    try:
        check.reach()
    except (httpx.HTTPError, redis.RedisError) as error:
        print(f"cannot begin: {error or type(error).__name__}", file=sys.stderr)
        return 2
    report.check("a stream begins, with its headers", check.headers_are_right)
    report.check("a plain PUBLISH arrives live", check.plain_is_live)
    report.check("durable events arrive unchanged", check.durable_is_whole)
    report.check("a new client gets all of it", check.replay_is_complete)
    report.check("who comes back goes on where it was", check.resume_is_exact)
    report.check("the history has the same", check.history_is_the_same)
    if not args.no_heartbeat:
        report.check("a heartbeat comes", check.heartbeat_comes)
    report.check("the run ends", check.end_comes)
    report.check("the end is final", check.end_is_final)
    print(f"\n{report.passed} hold, {report.failures} do not")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
