"""``Run`` against a real Redis."""

from __future__ import annotations

import json
import logging
import multiprocessing
import pathlib
import threading
import time
from typing import Any, List

import pytest
import redis

import runcast
from conftest import LIBRARY, Server


def test_two_lines_publish(server: Server) -> None:
    run = runcast.Run("42", server.url)
    first = run.output({"step": 1})
    second = run.output("text\n", source="stderr")
    assert [int(event_id.split("-")[1]) for event_id in (first, second)] == [1, 2]
    assert server.entries() == [
        ("output", "stdout", '{"step":1}', 0),
        ("output", "stderr", '"text\\n"', 0),
    ]
    run.close()


def test_data_is_sent_as_it_is(server: Server) -> None:
    with runcast.Run("42", server.url) as run:
        for data in ("123", 123, None, [1.5, True], "ü🚀", b"raw \x1b[31m"):
            run.output(data)
        run.output("\udc80 half")
        for bad in (float("nan"), {1, 2}):
            with pytest.raises((ValueError, TypeError)):
                run.output(bad)
    sent = [data for kind, _, data, _ in server.entries() if kind == "output"]
    plain = ['"123"', "123", "null", "[1.5,true]", '"ü🚀"', "raw \x1b[31m", '"? half"']
    assert sent == plain
    assert all(lost == 0 for *_, lost in server.entries()), "a refused one takes no number"


def test_an_echo_prints_what_is_published(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with runcast.Run("42", server.url, echo=True) as run:
        run.output("text")
        run.log("warn", "late", batch=7)
        run.status("running")
    monkeypatch.setenv("RUNCAST_ECHO", "1")
    with runcast.Run("43", server.url) as run:
        run.output({"step": 1})
    with runcast.Run("44", server.url, echo=False) as run:
        run.output("silent")
    printed = capsys.readouterr().out.splitlines()
    assert printed == ['"text"', '{"level":"warn","msg":"late","batch":7}', '{"step":1}']
    assert printed[:2] == [data for kind, _, data, _ in server.entries() if kind != "status"]


def test_a_block_tells_how_it_ended(server: Server) -> None:
    with runcast.Run("good", server.url):
        pass
    with pytest.raises(KeyError), runcast.Run("bad", server.url):
        raise KeyError("x")
    with pytest.raises(SystemExit), runcast.Run("exited", server.url):
        raise SystemExit(3)
    with pytest.raises(KeyboardInterrupt), runcast.Run("interrupted", server.url):
        raise KeyboardInterrupt
    with runcast.Run("told", server.url) as run:
        run.status("failed", exit_code=2)
    ends = {run_id: json.loads(server.entries(run_id)[-1][2]) for run_id in
            ("good", "bad", "exited", "interrupted", "told")}
    assert ends == {
        "good": "completed",
        "bad": {"status": "failed", "error": "KeyError: 'x'"},
        "exited": {"status": "failed", "exit_code": 3},
        "interrupted": "cancelled",
        "told": {"status": "failed", "exit_code": 2},
    }
    assert len(server.entries("told")) == 1


def test_what_is_refused_is_told_and_leaves_no_gap(server: Server) -> None:
    run = runcast.Run("42", server.url, options=["MAXEVENT", 100, "GRACE", 1])
    with pytest.raises(runcast.EventTooLarge, match="100"):
        run.output("x" * 200)
    run.output("small")
    run.status("completed")
    while True:
        try:
            run.output("late")
        except runcast.RunClosed:
            break
    assert all(lost == 0 for *_, lost in server.entries())
    anew = runcast.Run("42", server.url, restart=True)
    anew.output("again")
    anew.output("more")
    assert [data for _, _, data, _ in server.entries()] == ['"again"', '"more"']
    run.close()
    anew.close()


def test_a_broken_connection_doubles_nothing(server: Server) -> None:
    # One cut for each event that got through: a slow machine gets on, too.
    got_through = threading.Semaphore(0)
    over = threading.Event()
    ids = []

    def cut() -> None:
        with redis.Redis(port=server.port) as client:
            while got_through.acquire() and not over.is_set():
                client.client_kill_filter(_type="normal", skipme=True)

    with runcast.Run("42", server.url) as run:
        cutter = threading.Thread(target=cut)
        cutter.start()
        try:
            for n in range(200):
                ids.append(run.output(n))
                got_through.release()
        finally:
            over.set()
            got_through.release()
            cutter.join()
    assert len(set(ids)) == 200
    entries = server.entries()
    assert [data for _, _, data, _ in entries[:-1]] == [str(n) for n in range(200)]
    assert all(lost == 0 for *_, lost in entries)


def test_an_answer_that_is_lost_doubles_nothing(server: Server) -> None:
    # Redis takes the event but answers after the client has given up on it.
    client = redis.Redis(port=server.port, socket_timeout=0.2)
    run = runcast.Run("42", client=client)
    run.output("before")
    with redis.Redis(port=server.port) as other:
        other.client_pause(700, all=True)
        run.output("paused")
    run.output("after")
    data = [data for _, _, data, _ in server.entries()]
    assert data == ['"before"', '"paused"', '"after"']
    client.close()


def test_a_redis_that_stays_away_is_told(server: Server) -> None:
    run = runcast.Run("42", server.url, retry_for=0.3)
    run.output("before")
    server.stop()
    with pytest.raises(runcast.NotPublished):
        run.output("lost")
    server.start()
    server.load()
    run.output("after")
    # The new server knows nothing of the first two.
    assert server.entries() == [("output", "stdout", '"after"', 2)]
    run.close()


def test_an_outage_is_waited_out(server: Server) -> None:
    run = runcast.Run("42", server.url)
    run.output("before")
    server.stop()

    def come_back() -> None:
        server.start()
        time.sleep(0.2)
        server.load()

    back = threading.Thread(target=come_back)
    back.start()
    run.output("during")
    back.join()
    assert server.entries() == [("output", "stdout", '"during"', 1)]
    run.close()


def test_a_newer_process_fences_an_older_one(server: Server) -> None:
    old = runcast.Run("42", server.url, producer="worker")
    old.output("old")
    time.sleep(0.002)
    new = runcast.Run("42", server.url, producer="worker")
    new.output("new")
    with pytest.raises(runcast.Fenced):
        old.output("zombie")
    assert [data for _, _, data, _ in server.entries()] == ['"old"', '"new"']
    old.close()
    new.close()


def test_two_processes_of_one_name_and_moment_are_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_000_000_000_000_000)
    one = runcast.Run("42", server.url, producer="worker")
    two = runcast.Run("42", server.url, producer="worker")
    one.output("one")
    with pytest.raises(runcast.Fenced):
        two.output("two")
    one.close()
    two.close()


def publish_from_a_fork(run: runcast.Run) -> None:
    run.output("child")


def test_a_fork_is_a_publisher_of_its_own(server: Server) -> None:
    run = runcast.Run("42", server.url)
    run.output("parent")
    child = multiprocessing.get_context("fork").Process(target=publish_from_a_fork, args=(run,))
    child.start()
    child.join()
    assert child.exitcode == 0
    run.output("parent again")
    data = [data for _, _, data, _ in server.entries()]
    assert data == ['"parent"', '"child"', '"parent again"']
    run.close()


def test_threads_share_a_run(server: Server) -> None:
    with runcast.Run("42", server.url) as run:
        def work(name: int) -> None:
            for n in range(50):
                run.output([name, n])

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    entries = server.entries()
    assert len(entries) == 201
    assert all(lost == 0 for *_, lost in entries)
    for name in range(4):
        mine = [json.loads(data)[1] for kind, _, data, _ in entries
                if kind == "output" and json.loads(data)[0] == name]
        assert mine == list(range(50))


def test_a_missing_function_is_told(bare: Server) -> None:
    run = runcast.Run("42", bare.url)
    with pytest.raises(runcast.FunctionMissing, match="load_function"):
        run.output("x")
    bare.load()
    bare.load()
    run.output("x")
    assert bare.entries() == [("output", "stdout", '"x"', 0)]
    run.close()


def test_bad_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNCAST_RUN_ID", raising=False)
    for run_id in (None, "", "-a", "a/b", "a" * 129, "ü", "a\n"):
        with pytest.raises(ValueError, match="run id"):
            runcast.Run(run_id)
    with pytest.raises(ValueError, match="producer"):
        runcast.Run("42", producer="a b")


def test_a_wrong_password_is_told_at_once(tmp_path: pathlib.Path) -> None:
    server = Server(tmp_path)
    with redis.Redis(port=server.port) as client:
        client.config_set("requirepass", "secret")
    run = runcast.Run("42", f"redis://:wrong@127.0.0.1:{server.port}")
    began = time.monotonic()
    with pytest.raises(runcast.RuncastError):
        run.output("x")
    assert time.monotonic() - began < 5
    run.close()
    server.stop()


def test_logging_goes_to_the_run(server: Server) -> None:
    logger = logging.getLogger("agent.loader")
    logger.propagate = False
    logger.setLevel(1)
    with runcast.Run("42", server.url) as run:
        handler = runcast.RunHandler(run)
        logger.addHandler(handler)
        logger.warning("late %d", 7)
        logger.log(5, "fine")
        logger.critical("stop")
        logging.getLogger("redis.connection").addHandler(handler)
        logging.getLogger("redis.connection").error("not from within")
        logging.getLogger("redis.connection").removeHandler(handler)
        logger.removeHandler(handler)
    logs = [json.loads(data) for kind, _, data, _ in server.entries() if kind == "log"]
    assert [(log["level"], log["msg"]) for log in logs] == [
        ("warn", "late 7"), ("trace", "fine"), ("fatal", "stop"),
    ]
    assert server.entries()[0][1] == "agent.loader"


def test_a_cluster_takes_it_too(tmp_path: pathlib.Path) -> None:
    server = Server(tmp_path, "--cluster-enabled", "yes")
    with redis.Redis(port=server.port) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
        deadline = time.monotonic() + 10
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.01)
    server.load()
    cluster = redis.RedisCluster(port=server.port, host="127.0.0.1")
    with runcast.Run("42", client=cluster) as run:
        run.output("x")
    assert [kind for kind, *_ in server.entries()] == ["output", "status"]
    cluster.close()
    server.stop()


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traces(server: Server) -> List[Any]:
    with redis.Redis(port=server.port, decode_responses=True) as client:
        stream: Any = client.xrange("run:{42}:stream")
    return [fields.get("t") for _, fields in stream]


def test_a_trace_goes_along(server: Server) -> None:
    run = runcast.Run("42", server.url, traceparent=PARENT)
    run.output(1)
    run.traceparent = PARENT + " vendor=x"
    run.output(2)
    for other in ("malformed", PARENT[:-1] + "0", None):
        run.traceparent = other
        run.output(3)
    run.close()
    assert traces(server) == [PARENT, PARENT + " vendor=x", None, None, None]


def test_a_function_without_traces_takes_the_event(bare: Server, tmp_path: pathlib.Path) -> None:
    older = tmp_path / "older.lua"
    older.write_text(LIBRARY.read_text().replace("'TRACE'", "'LATER'"))
    with redis.Redis(port=bare.port) as client:
        runcast.load_function(client, older)
    run = runcast.Run("42", bare.url, traceparent=PARENT)
    run.output(1)
    run.output(2)
    run.close()
    assert [data for _, _, data, _ in bare.entries()] == ["1", "2"]
    assert traces(bare) == [None, None]
