"""Two hosts of an installation as real processes over one PostgreSQL and one Valkey, to kill, freeze and cut.

Host `a` reaches the services directly, host `b` over a network that can be cut. Knows neither load nor schedule.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cli.services import Services
from jobs.schema import migrate
from jobs.settings import ServiceSettings
from tests.acceptance.system import Process
from tests.chaos.clock import Clock, clock
from tests.chaos.disk import small_disk
from tests.chaos.far_host import FarHost, far_host
from tests.chaos.ports import Ports
from tests.chaos.wire import Network
from tests.fixtures.eventually import eventually

MODEL = "vlmq-demo"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Times:
    """Settings of the installation under test, in seconds."""

    lease_s: float = 10.0
    heartbeat_s: float = 2.0
    engine_silence_s: float = 8.0
    stream_ttl_s: int = 20
    blob_age_s: float = 10.0
    clean_s: float = 2.0
    max_attempts: int = 4


@dataclass(frozen=True, slots=True)
class Part:
    """One process: how it is started, and what it says when it works."""

    name: str
    module: tuple[str, ...]
    environment: Mapping[str, str]
    ready: str
    port: int = 0
    enter: tuple[str, ...] = ()
    """The words before its command where it runs on another host."""


@dataclass
class Cluster:
    services: Services
    settings: ServiceSettings
    folder: Path
    times: Times
    root: Path
    """The source tree that the processes run: the project's own, or a mutant of it."""
    far: FarHost
    clock: Clock
    ports: Ports
    no_disk: str
    """Why the blob store is no disk that can be filled; empty when it is one."""
    device: str = "cpu"
    """Where the engines compute: cpu, cuda or cuda:<n>."""
    receiver: str = "127.0.0.1"
    """Host and port of the webhook receiver."""
    parts: dict[str, Part] = field(default_factory=dict)
    running: dict[str, Process] = field(default_factory=dict)
    starts: int = 0
    pids: dict[str, int] = field(default_factory=dict)
    """Of every start of every process; `worker-a.007`, as its log is called, was the seventh start of any."""

    @property
    def urls(self) -> list[str]:
        """Of both API processes."""
        return [f"http://127.0.0.1:{part.port}" for part in self.parts.values() if part.port]

    def start(self, name: str, wait: bool = True) -> Process:
        part = self.parts[name]
        self.starts += 1
        log = self.folder / f"{name}.{self.starts:03d}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [*part.enter, sys.executable, "-m", *part.module],
                cwd=self.root,
                env=os.environ | self._found_first() | self._named(part, log.stem),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = self.running[name] = Process(name, popen, log)
        self.pids[log.stem] = popen.pid
        if wait:
            eventually(f"{name} is ready", lambda: self.ready(name))
        return process

    def _named(self, part: Part, name: str) -> dict[str, str]:
        """Its environment, in which its connections to PostgreSQL have its name."""
        url = part.environment["VLMQ_DATABASE_URL"]
        return {**part.environment, "VLMQ_DATABASE_URL": f"{url}&application_name={name}"}

    def _found_first(self) -> dict[str, str]:
        """The tree under test before whatever this process was told to find its packages in."""
        others = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": f"{self.root}{os.pathsep}{others}" if others else str(self.root)}

    def start_all(self) -> None:
        for name in self.parts:
            self.start(name, wait=False)
        for name in self.parts:
            eventually(f"{name} is ready", lambda name=name: self.ready(name))  # type: ignore[misc]

    def ready(self, name: str) -> bool:
        process = self.running[name]
        code = process.popen.poll()
        assert code is None, f"{name} exited {code}:\n{process.output()[-3000:]}"
        return self.parts[name].ready in process.output()

    def kill(self, name: str) -> None:
        self.running[name].kill()

    def signal(self, name: str, number: signal.Signals, alone: bool = False) -> None:
        """To the process and, unless it is meant `alone`, its children: a host that freezes freezes as a whole."""
        process = psutil.Process(self.running[name].popen.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in (process, *([] if alone else process.children(recursive=True))):
                each.send_signal(number)

    @contextlib.contextmanager
    def frozen(self, name: str, alone: bool = False) -> Iterator[None]:
        """Stands still, and goes on whatever happens meanwhile."""
        self.signal(name, signal.SIGSTOP, alone)
        try:
            yield
        finally:
            self.signal(name, signal.SIGCONT, alone)

    def engine(self, name: str) -> psutil.Process | None:
        """The engine process of a worker, unless it is just being replaced."""
        with contextlib.suppress(StopIteration, psutil.NoSuchProcess):
            return self.running[name].engine()
        return None

    def processes(self) -> dict[str, psutil.Process]:
        """All that run, the workers' engines by themselves."""
        found = {}
        for name, process in self.running.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[name] = psutil.Process(process.popen.pid)
                if name.startswith("worker") and (engine := self.engine(name)) is not None:
                    found[f"{name} engine"] = engine
        return found

    def alive(self) -> set[int]:
        """Process ids of what was started and should run."""
        return {process.popen.pid for process in self.running.values()}

    def memory(self) -> dict[str, int]:
        """Resident bytes of each process."""
        sizes = {}
        for name, process in self.processes().items():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes[name] = process.memory_info().rss
        return sizes

    def stop(self) -> None:
        self.far.heal()
        for name, process in self.running.items():
            if process.popen.poll() is None:
                self.signal(name, signal.SIGCONT)
                process.popen.terminate()
        end = time.monotonic() + 40
        for process in self.running.values():
            try:
                process.popen.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.popen.pid, signal.SIGKILL)
                process.popen.wait(10)


@contextlib.contextmanager
def cluster(
    folder: Path, times: Times, root: Path = ROOT, receiver_port: int = 0, device: str = "cpu"
) -> Iterator[Cluster]:
    """Everything is set up, nothing of ours runs yet. Nothing is shared with another cluster on the machine."""
    with (
        # Outside pytest's folder, which other users may not enter: PostgreSQL is one of them.
        tempfile.TemporaryDirectory(prefix="vlmq-chaos-") as home,
        clock(Path(home)) as wall,
        Services(Path(home)) as services,
        small_disk(folder / "blobs") as no_disk,
        contextlib.closing(Network()) as network,
        far_host(services, network) as far,
        contextlib.closing(Ports()) as ports,
    ):
        migrate(services.database_url)
        if receiver_port:
            far.let_out(receiver_port)
        settings = ServiceSettings(
            database_url=services.database_url,
            redis_url=services.redis_url,
            blob_url=str(folder / "blobs"),
            models=(MODEL,),
            lease_s=times.lease_s,
            heartbeat_s=times.heartbeat_s,
            stream_ttl_s=times.stream_ttl_s,
            max_attempts=times.max_attempts,
        )
        receiver = f"127.0.0.1:{receiver_port}"
        it = Cluster(services, settings, folder, times, root, far, wall, ports, no_disk, device, receiver)
        it.parts = parts_of(it)
        try:
            yield it
        finally:
            it.stop()


def parts_of(cluster: Cluster) -> dict[str, Part]:
    """Whatever an installation runs, on both hosts where it may run twice."""
    made: list[Part] = []
    for host in ("a", "b"):
        here = _environment(cluster, host)
        enter = () if host == "a" else cluster.far.enter
        port = cluster.ports.reserve()
        if host == "b":
            cluster.far.let_in(port)
        api = here | {"VLMQ_API_PORT": str(port), "VLMQ_API_KEEPALIVE_S": "2"}
        made += [
            Part(f"api-{host}", ("api",), api, "Application startup complete", port, enter),
            Part(f"worker-{host}", ("worker",), here, " ready", enter=enter),
            Part(f"maintenance-{host}", ("worker.maintenance",), here, "ready", enter=enter),
            Part(f"batches-{host}", ("api.batch_process",), here, "ready", enter=enter),
            Part(f"deliveries-{host}", ("worker.deliveries",), here, "deliveries ready", enter=enter),
        ]
    return {part.name: part for part in made}


def _environment(cluster: Cluster, host: str) -> dict[str, str]:
    times, settings = cluster.times, cluster.settings
    near = host == "a"
    return {
        "VLMQ_DATABASE_URL": settings.database_url if near else cluster.far.database_url,
        "VLMQ_REDIS_URL": settings.redis_url if near else cluster.far.redis_url,
        "VLMQ_BLOB_URL": settings.blob_url,
        "VLMQ_MODELS": MODEL,
        "VLMQ_LEASE_S": str(times.lease_s),
        "VLMQ_HEARTBEAT_S": str(times.heartbeat_s),
        "VLMQ_MAX_ATTEMPTS": str(times.max_attempts),
        "VLMQ_STREAM_TTL_S": str(times.stream_ttl_s),
        "VLMQ_WORKER_MODEL": MODEL,
        "VLMQ_WORKER_DEVICE": cluster.device,
        "VLMQ_WORKER_GRACE_S": "1",
        "VLMQ_WORKER_ENGINE_SILENCE_S": str(times.engine_silence_s),
        "VLMQ_WEBHOOKS_ALLOWED_HOSTS": cluster.receiver,
        "VLMQ_WEBHOOKS_SCHEDULE_S": "0,1,1,2,2,4,4,8,8,8,8",
        "VLMQ_WEBHOOKS_TIMEOUT_S": "3",
        "VLMQ_WEBHOOKS_LEASE_S": "8",
        "VLMQ_API_BATCH_POLL_S": "0.5",
        "VLMQ_MAINTENANCE_BLOB_AGE_S": str(times.blob_age_s),
        "VLMQ_MAINTENANCE_CLEAN_S": str(times.clean_s),
        "OMP_NUM_THREADS": "1",
    }
