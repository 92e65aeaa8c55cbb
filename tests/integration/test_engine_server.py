"""The engine process over a real socket, as its worker sees it: every backend, one suite."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.tensorrt_llm import INSTALLED
from tests.fixtures.engines import ENDS
from worker.engine.frames import encode, from_engine_decoder
from worker.engine.generation import Finish, Generation, Grammar, GrammarKind, Sampling, TokenOutput
from worker.engine.messages import (
    Cancel,
    Fatal,
    FromEngine,
    Loading,
    Outputs,
    Ready,
    Refused,
    Stats,
    Stop,
    Submit,
    ToEngine,
)

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0
ARGUMENTS = ["--slots", "4", "--threads", "1"]


@dataclass(frozen=True)
class Backend:
    """`device` is what the engine says of itself."""

    arguments: list[str]
    device: str
    environment: dict[str, str] = field(default_factory=dict)


TORCH = Backend(["--pages", "64"], "cpu")


class Child:
    """One engine process and this side of its socket."""

    def __init__(self, model: Path, backend: Backend = TORCH) -> None:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = str(Path(folder) / "s")
            listener.bind(path)
            listener.listen(1)
            command = [sys.executable, "-m", "worker.engine.server", "--socket", path, "--model", str(model)]
            self.process = subprocess.Popen(
                [*command, *ARGUMENTS, *backend.arguments],
                stderr=subprocess.DEVNULL,
                env=os.environ | backend.environment,
            )
            listener.settimeout(DEADLINE_S)
            self.socket, _ = listener.accept()
        self._decoder = from_engine_decoder()
        self.seen: list[FromEngine] = []

    def send(self, *messages: ToEngine) -> None:
        for message in messages:
            self.socket.sendall(encode(message))

    def read_until(self, done: Callable[[FromEngine], bool]) -> list[FromEngine]:
        """Reads up to and with the message that is `done`; what arrived with it stays for the next call."""
        until = time.monotonic() + DEADLINE_S
        while True:
            for n, message in enumerate(self.seen):
                if done(message):
                    taken, self.seen = self.seen[: n + 1], self.seen[n + 1 :]
                    return taken
            assert select.select([self.socket], [], [], max(until - time.monotonic(), 0))[0], self.seen
            data = self.socket.recv(1 << 16)
            assert data, f"the engine closed the socket after {self.seen}"
            self.seen += self._decoder.feed(data)

    def outputs_of(self, generation_id: str) -> list[TokenOutput]:
        """Its outputs up to the last one."""
        messages = self.read_until(
            lambda m: isinstance(m, Outputs) and any(o.id == generation_id and o.finish for o in m.outputs)
        )
        return [o for m in messages if isinstance(m, Outputs) for o in m.outputs if o.id == generation_id]

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module", params=["torch", "tensorrt_llm"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The language model in torch, or in the fake TensorRT-LLM with torch for pictures."""
    if request.param == "torch":
        return TORCH
    engines = request.getfixturevalue("tiny_engines")
    return Backend(
        ["--backend", "tensorrt_llm", "--engines", str(engines), "--vision", "torch"],
        "TensorRT-LLM 1.2.1 on cpu",
        {"PYTHONPATH": str(INSTALLED)},
    )


@pytest.fixture
def start(backend: Backend) -> Iterator[Callable[[Path], Child]]:
    children: list[Child] = []

    def start(model: Path) -> Child:
        children.append(Child(model, backend))
        return children[-1]

    yield start
    for child in children:
        child.close()


@pytest.fixture(scope="module")
def child(tiny_model: Path, backend: Backend) -> Iterator[Child]:
    child = Child(tiny_model, backend)
    child.seen = child.read_until(lambda m: isinstance(m, Ready))
    yield child
    child.close()


def _ask(name: str, **changes: object) -> Generation:
    values: dict[str, object] = {"prompt_ids": [5, 6, 7, 8], "sampling": Sampling(), "max_tokens": 6, **changes}
    return Generation(name, **values)  # type: ignore[arg-type]


def test_a_child_reports_its_loading_and_then_that_it_is_ready(child: Child, backend: Backend) -> None:
    started = child.seen
    child.seen = []
    loading = [m.done for m in started if isinstance(m, Loading)]
    assert loading == sorted(loading) and loading[0] == 0.0 and loading[-1] == 1.0
    assert started[-1] == Ready(vocab_size=2048, context_length=1024, slots=4, device=backend.device)


def test_a_submitted_generation_streams_a_token_per_output(child: Child) -> None:
    child.send(Submit(_ask("a")))
    outputs = child.outputs_of("a")
    assert [len(o.tokens) for o in outputs] == [1] * 6
    assert [o.finish for o in outputs] == [None] * 5 + [Finish.LENGTH]


def test_several_generations_share_one_outputs_message(child: Child) -> None:
    child.send(*(Submit(_ask(f"s{n}", max_tokens=20)) for n in range(3)))
    messages = child.read_until(lambda m: isinstance(m, Outputs) and any(o.finish for o in m.outputs))
    # An executor may tell of two tokens of one generation at once, and of none the time before.
    assert max(len({o.id for o in m.outputs}) for m in messages if isinstance(m, Outputs)) > 1


def test_a_cancelled_generation_ends_with_cancelled(child: Child) -> None:
    child.send(Submit(_ask("c", max_tokens=1000)), Cancel("c"))
    assert child.outputs_of("c")[-1].finish is Finish.CANCELLED


def test_a_generation_that_cannot_run_is_refused_by_code_and_others_go_on(child: Child) -> None:
    child.send(Submit(_ask("big", prompt_ids=[1] * 2000)), Submit(_ask("good")))
    [refused] = [m for m in child.read_until(lambda m: isinstance(m, Refused)) if isinstance(m, Refused)]
    assert (refused.generation_id, refused.code) == ("big", "context_length_exceeded")
    assert "2000" in refused.message and "1024" in refused.message
    assert child.outputs_of("good")[-1].finish is Finish.LENGTH


def test_a_generation_with_a_grammar_keeps_it_and_a_bad_schema_is_refused(child: Child) -> None:
    kept = Grammar(GrammarKind.JSON_SCHEMA, '{"enum": [12, 345]}')
    bad = Grammar(GrammarKind.JSON_SCHEMA, '{"type": "array", "uniqueItems": true}')
    child.send(Submit(_ask("bad", stop_ids=ENDS, grammar=bad)), Submit(_ask("kept", stop_ids=ENDS, grammar=kept)))
    refused = child.read_until(lambda m: isinstance(m, Refused))[-1]
    assert isinstance(refused, Refused)
    assert (refused.generation_id, refused.code) == ("bad", "invalid_json_schema")
    assert "uniqueItems" in refused.message
    assert child.outputs_of("kept")[-1].finish is Finish.STOP


def test_statistics_follow_the_last_output_of_a_busy_time(child: Child) -> None:
    child.send(Submit(_ask("s")))
    child.outputs_of("s")
    stats = child.read_until(lambda m: isinstance(m, Stats))[-1]
    assert isinstance(stats, Stats)
    assert (stats.stats.running, stats.stats.slots) == (0, 4)
    assert stats.stats.generated_tokens > 0


def test_ctrl_c_is_left_to_the_worker(child: Child) -> None:
    child.process.send_signal(signal.SIGINT)
    child.send(Submit(_ask("after")))
    assert child.outputs_of("after")[-1].finish is Finish.LENGTH


def test_stop_ends_the_process_with_zero(tiny_model: Path, start: Callable[[Path], Child]) -> None:
    child = start(tiny_model)
    child.read_until(lambda m: isinstance(m, Ready))
    child.send(Submit(_ask("a", max_tokens=1000)), Stop())
    assert child.process.wait(DEADLINE_S) == 0


def test_a_closed_socket_ends_the_process_in_mid_generation(tiny_model: Path, start: Callable[[Path], Child]) -> None:
    child = start(tiny_model)
    child.read_until(lambda m: isinstance(m, Ready))
    child.send(Submit(_ask("a", max_tokens=1000)))
    child.read_until(lambda m: isinstance(m, Outputs))
    child.socket.close()
    assert child.process.wait(DEADLINE_S) == 0


def test_a_folder_without_a_model_is_fatal_and_named(tmp_path: Path, start: Callable[[Path], Child]) -> None:
    child = start(tmp_path)
    [fatal] = [m for m in child.read_until(lambda m: isinstance(m, Fatal)) if isinstance(m, Fatal)]
    assert str(tmp_path) in fatal.message
    assert child.process.wait(DEADLINE_S) == 1


def test_bytes_that_are_no_message_are_fatal(tiny_model: Path, start: Callable[[Path], Child]) -> None:
    child = start(tiny_model)
    child.read_until(lambda m: isinstance(m, Ready))
    child.socket.sendall(b"\x00\x00\x00\x03abc")
    [fatal] = [m for m in child.read_until(lambda m: isinstance(m, Fatal)) if isinstance(m, Fatal)]
    assert "no known message" in fatal.message
    assert child.process.wait(DEADLINE_S) == 1


def test_the_death_of_the_parent_ends_the_process(tiny_model: Path, tmp_path: Path) -> None:
    """The parent is a process of its own that starts the engine, waits until it is ready, and is killed."""
    script = (
        "import sys, time; from pathlib import Path; from tests.integration.test_engine_server import Child\n"
        "from worker.engine.messages import Ready\n"
        "child = Child(Path(sys.argv[1])); child.read_until(lambda m: isinstance(m, Ready))\n"
        "print(child.process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tiny_model)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_gone(pid)


def _wait_gone(pid: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")
