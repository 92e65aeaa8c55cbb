"""The whole system as real processes on the embedded services, for tests to use, kill and look at."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from jobs import connect
from jobs.ports import WorkerStatus
from jobs.settings import ServiceSettings
from tests.fixtures.eventually import WITHIN_S, eventually

MODEL = "vlmq-tiny"
"""The random checkpoint: fast, and its answers end where they are told to."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """One of ours, its output in a file."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(30)

    def terminate(self, within_s: float = 60.0) -> int:
        self.popen.terminate()
        return self.popen.wait(within_s)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.popen.pid).children(recursive=True)

    def engine(self) -> psutil.Process:
        """The engine process of a worker."""
        return next(c for c in self.children() if any("worker.engine.server" in part for part in c.cmdline()))


@dataclass
class System:
    """Starts and ends processes with one environment; stop() ends what is left."""

    settings: ServiceSettings
    folder: Path
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)
    url: str = ""

    def start(self, name: str, *module: str, **environment: str) -> Process:
        log = self.folder / f"{name}-{len(self.processes)}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=os.environ | self.environment | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def start_api(self, **environment: str) -> Process:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        process = self.start("api", "api", VLMQ_API_PORT=str(port), **environment)
        eventually("the API answers", lambda: self.answers("/healthz", process))
        return process

    def start_worker(self, **environment: str) -> Process:
        """A worker that has begun to take jobs."""
        process = self.start("worker", "worker", **environment)
        eventually("the worker is ready", lambda: self.alive(process) and " ready" in process.output())
        return process

    def start_maintenance(self) -> Process:
        return self.start("maintenance", "worker.maintenance")

    def start_batches(self, **environment: str) -> Process:
        """A batch process that has begun to look."""
        process = self.start("batches", "api.batch_process", VLMQ_API_BATCH_POLL_S="0.1", **environment)
        eventually("the batch process is ready", lambda: self.alive(process) and "ready" in process.output())
        return process

    def start_deliveries(self, **environment: str) -> Process:
        """A deliverer that has begun to take webhooks."""
        process = self.start("deliveries", "worker.deliveries", **environment)
        eventually("the deliverer is ready", lambda: self.alive(process) and "deliveries ready" in process.output())
        return process

    def alive(self, process: Process) -> bool:
        assert process.popen.poll() is None, f"{process.name} exited {process.popen.returncode}:\n{process.output()}"
        return True

    def answers(self, path: str, process: Process) -> bool:
        self.alive(process)
        try:
            return httpx2.get(self.url + path, timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in reversed(self.processes):
            try:
                process.popen.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(process.popen.pid, signal.SIGKILL)
                process.popen.wait(10)

    def key(self, tenant: str) -> str:
        """The secret of a new key of the tenant's. From the first one on nobody comes in without one."""
        pool = connect.database(self.settings, pool_size=1)
        try:
            return connect.api_keys(pool).create(tenant, "tests")[1]
        finally:
            pool.close()

    # -- what a client does

    def submit(self, body: dict[str, Any]) -> str:
        answer = httpx2.post(f"{self.url}/v1/jobs", json=body, timeout=30)
        assert answer.status_code in (200, 201, 202), answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = httpx2.get(f"{self.url}/v1/jobs/{job_id}", timeout=30)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def cancel(self, job_id: str) -> dict[str, Any]:
        answer = httpx2.post(f"{self.url}/v1/jobs/{job_id}/cancel", timeout=30)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait(self, job_id: str, status: str = "", within_s: float = WITHIN_S) -> dict[str, Any]:
        """The job once it is terminal, or once it has `status`."""

        def reached() -> dict[str, Any] | None:
            job = self.job(job_id)
            over = job["status"] not in ("queued", "in_progress")
            return job if job["status"] == status or (over and not status) else None

        return dict(eventually(f"{job_id} becomes {status or 'terminal'}", reached, within_s))

    def statistics(self) -> dict[str, Any]:
        """The engine's last statistics, as its worker's heartbeat tells them."""
        pool = connect.database(self.settings, pool_size=1)
        store = connect.job_store(pool)
        try:
            return dict(eventually("statistics", lambda: newest(store.workers(self.settings.lease_s))))
        finally:
            pool.close()

    def reader(self, job_id: str, after: int | None = None) -> "Reader":
        return Reader(self.url, job_id, after)


def newest(workers: Sequence[WorkerStatus]) -> Mapping[str, Any]:
    """What the last worker alive says of its engine; nothing before its engine has said anything."""
    alive = [worker for worker in workers if worker.alive]
    return alive[-1].record.stats if alive else {}


class Reader:
    """Reads a job's events on a thread of its own, reconnecting as a browser's EventSource does: with the last id
    it saw."""

    def __init__(self, url: str, job_id: str, after: int | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.connections = 0
        self._url = f"{url}/v1/jobs/{job_id}/events"
        self._last = after
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set() and not self._stop.is_set():
            headers = {} if self._last is None else {"last-event-id": str(self._last)}
            self.connections += 1
            try:
                with httpx2.stream("GET", self._url, headers=headers, timeout=httpx2.Timeout(10, read=60)) as answer:
                    assert answer.status_code == 200, answer.read()
                    for event in events_of(answer.iter_lines()):
                        self._take(event)
            except httpx2.TransportError:
                time.sleep(0.2)

    def _take(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self._last = event["sequence"]
        if event["type"] not in ("job.queued", "job.in_progress", "job.delta"):
            self._ended.set()

    def text(self) -> str:
        return "".join(event["text"] for event in list(self.events) if event["type"] == "job.delta")

    def told(self) -> dict[int, str]:
        """What was told of each choice so far."""
        texts: dict[int, str] = {}
        for event in list(self.events):
            if event["type"] == "job.delta":
                texts[event["index"]] = texts.get(event["index"], "") + event["text"]
        return texts

    def tokens(self) -> int:
        return sum(event["type"] == "job.delta" for event in list(self.events))

    def sequences(self) -> list[int]:
        return [event["sequence"] for event in list(self.events)]

    def wait_for_tokens(self, count: int) -> None:
        eventually(f"{count} tokens", lambda: self.tokens() >= count)

    def wait(self, within_s: float = WITHIN_S) -> str:
        """The whole text, after the log's end."""
        assert self._ended.wait(within_s), f"no end after {within_s:.0f} s; last: {self.events[-1:]}"
        return self.text()

    def close(self) -> None:
        self._stop.set()


def events_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The data of each server-sent event, checked against its id and name."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            key, _, value = line.partition(":")
            fields[key] = value.removeprefix(" ")
        elif "data" in fields:
            data = json.loads(fields["data"])
            assert str(data["sequence"]) == fields["id"]
            assert data["type"] == fields["event"]
            yield data
            fields = {}
        else:
            fields = {}


@contextmanager
def system(settings: ServiceSettings, folder: Path, **environment: str) -> Iterator[System]:
    """A System over given services; nothing runs yet."""
    base = {
        "VLMQ_DATABASE_URL": settings.database_url,
        "VLMQ_REDIS_URL": settings.redis_url,
        "VLMQ_REDIS_PREFIX": settings.redis_prefix,
        "VLMQ_BLOB_URL": settings.blob_url,
        "VLMQ_LEASE_S": str(settings.lease_s),
        "VLMQ_HEARTBEAT_S": str(settings.heartbeat_s),
        "VLMQ_MODELS": MODEL,
        "VLMQ_WORKER_MODEL": MODEL,
        "OMP_NUM_THREADS": "1",
    }
    it = System(settings, folder, base | environment)
    try:
        yield it
    finally:
        it.stop()
