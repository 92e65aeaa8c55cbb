"""Keeping a real engine process: outputs to sinks, death, silence, refusal."""

import itertools
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.fixtures.engine_process import TIMES, Recorder, command_of, run
from tests.fixtures.engines import ask
from tests.fixtures.eventually import eventually
from tests.fixtures.tensorrt_llm import BACKENDS
from worker.engine.generation import Finish, Generation, Image, TokenOutput
from worker.engine_process import EngineProcess
from worker.errors import EngineUnavailable
from worker.settings import EngineCommand

pytestmark = pytest.mark.integration

_numbers = itertools.count()


@pytest.fixture(scope="module", params=BACKENDS)
def command(request: pytest.FixtureRequest) -> Callable[[Path], EngineCommand]:
    """Of either backend, for the checkpoint in a folder."""
    engines = None if request.param == "torch" else request.getfixturevalue("tiny_engines")
    return lambda model: command_of(model, engines)


@pytest.fixture(scope="module")
def engine(tiny_model: Path, command: Callable[[Path], EngineCommand]) -> Iterator[EngineProcess]:
    made = EngineProcess(command(tiny_model), TIMES)
    assert made.start().slots == 4
    yield made
    made.close()


def generation(max_tokens: int = 8, **values) -> Generation:
    """With an id that no other has: an engine may still speak of the last one."""
    return ask(f"generation-{next(_numbers)}", 1, 40, max_tokens=max_tokens, **values)


def test_generation_is_heard_to_its_end_and_the_same_again(engine):
    first, again = run(engine, generation()), run(engine, generation())
    assert (len(first.ids), first.finish) == (8, Finish.LENGTH)
    assert again.ids == first.ids


def test_generation_goes_on_after_the_tokens_it_brings(engine):
    whole = run(engine, generation())
    rest = run(engine, generation(generated=whole.ids[:3]))
    assert rest.ids == whole.ids[3:]


def test_generation_that_can_never_fit_is_refused(engine):
    assert run(engine, generation(prompt_ids=[5] * 5000)).refused == "context_length_exceeded"


def test_cancelled_generation_is_heard_of_no_more_and_frees_its_slot(engine):
    sink = Recorder()
    made = generation(max_tokens=3000)
    engine.submit(made, sink)
    eventually("it runs", lambda: sink.ids)
    engine.cancel(made.id)
    eventually("the slot is free", lambda: engine.stats is not None and engine.stats.running == 0)
    assert not sink.over.is_set()


def test_killed_engine_tells_its_generations_and_is_replaced(engine):
    sink = Recorder()
    engine.submit(generation(max_tokens=3000), sink)
    eventually("it runs", lambda: sink.ids)
    killed = engine.pid
    psutil.Process(killed).kill()
    assert "SIGKILL" in sink.wait().died
    # Submitted while there is no engine: runs on the next one.
    assert run(engine, generation()).finish is Finish.LENGTH
    assert engine.pid != killed


def test_silent_engine_with_work_is_killed_and_replaced(engine):
    sink = Recorder()
    engine.submit(generation(max_tokens=3000), sink)
    eventually("it runs", lambda: sink.ids)
    psutil.Process(engine.pid).send_signal(signal.SIGSTOP)
    assert "silent" in sink.wait().died
    assert run(engine, generation()).finish is Finish.LENGTH


def test_engine_that_hangs_while_it_is_given_pictures_is_killed_also_when_its_receiver_has_something_to_say(engine):
    """A stop string, say, ends a generation on the thread that also watches for silence."""
    pictures = msgspec.structs.replace(generation(), images=[Image(bytes(32), 1, bytes(32 << 20))])
    given = Recorder()

    class Stopper(Recorder):
        def on_output(self, output: TokenOutput) -> None:
            if not self.ids:
                psutil.Process(engine.pid).send_signal(signal.SIGSTOP)
                giving = threading.Thread(target=engine.submit, args=(pictures, given), daemon=True)
                giving.start()
                giving.join(2)
                engine.cancel(output.id)
            super().on_output(output)

    engine.submit(generation(max_tokens=3000), Stopper())
    assert given.wait().died
    assert run(engine, generation()).finish is Finish.LENGTH


def test_engine_whose_socket_finds_no_place_is_given_up_with_its_reason(tiny_model, command, tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    made = EngineProcess(command(tiny_model), replace(TIMES, restarts=0))
    with pytest.raises(EngineUnavailable, match="path too long"):
        made.start()
    assert list(deep.iterdir()) == []
    made.close()


def test_silent_engine_without_work_is_killed_and_replaced(engine):
    assert engine.wait_until_serving(60)
    frozen = engine.pid
    psutil.Process(frozen).send_signal(signal.SIGSTOP)
    eventually("another engine serves", lambda: engine.pid not in (frozen, None) and engine.wait_until_serving(0))
    assert run(engine, generation()).finish is Finish.LENGTH


def test_engine_that_hangs_while_it_loads_is_killed_and_replaced(engine):
    assert engine.wait_until_serving(60)
    killed = engine.pid
    psutil.Process(killed).kill()
    hung = eventually("the next one starts", lambda: engine.pid not in (killed, None) and engine.pid)
    psutil.Process(hung).send_signal(signal.SIGSTOP)
    assert run(engine, generation()).finish is Finish.LENGTH
    assert engine.pid != hung


def test_engine_that_cannot_load_is_given_up_with_its_reason(command, tmp_path):
    told = []
    made = EngineProcess(command(tmp_path / "none"), replace(TIMES, restarts=0), told.append)
    with pytest.raises(EngineUnavailable, match=r"config\.json"):
        made.start()
    sink = Recorder()
    made.submit(generation(), sink)
    assert sink.wait().died
    made.close()
    assert len(told) == 1


class Doomed(EngineCommand):
    """An engine that serves and dies of the first generation, whatever it is: of a broken GPU, say."""

    def program(self, socket: Path) -> list[str]:
        lines = (
            "import socket, sys",
            "from worker.engine.frames import encode",
            "from worker.engine.messages import Ready",
            "worker = socket.socket(socket.AF_UNIX)",
            "worker.connect(sys.argv[1])",
            "worker.sendall(encode(Ready(100, 100, 1, 'cpu')))",
            "worker.recv(1)",
        )
        return [sys.executable, "-c", "\n".join(lines), str(socket)]


def test_engine_that_serves_and_ends_no_generation_is_given_up_before_it_has_cost_every_job_its_attempts(tiny_model):
    told: list[str] = []
    made = EngineProcess(Doomed((), command_of(tiny_model).environment), TIMES, told.append)
    made.start()
    deaths = 0
    while not told:
        assert run(made, generation()).died
        deaths += 1
    assert deaths <= 12
    made.close()


def test_engine_that_keeps_the_interpreter_while_it_loads_is_waited_for(tiny_model, tiny_engines):
    """Longer than any other silence is borne: the executor's loader lets no other thread speak."""
    command = command_of(tiny_model, tiny_engines)
    command.environment["FAKE_TENSORRT_LLM_LOAD_S"] = "14"
    made = EngineProcess(command, replace(TIMES, restarts=0))
    made.start()
    assert run(made, generation()).finish is Finish.LENGTH
    made.close()


def test_closed_engine_leaves_no_process(command, tiny_model):
    made = EngineProcess(command(tiny_model), TIMES)
    made.start()
    child = psutil.Process(made.pid)
    made.close()
    assert not child.is_running()
