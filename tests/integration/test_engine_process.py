"""Keeping a real engine process: outputs to sinks, death, silence, refusal."""

import itertools
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from jobs.settings import load
from tests.fixtures.eventually import eventually
from worker.engine.generation import Finish, Generation, Sampling, TokenOutput
from worker.engine_process import EngineProcess, EngineTimes
from worker.errors import EngineUnavailable
from worker.settings import EngineCommand, ModelSettings, WorkerSettings

pytestmark = pytest.mark.integration

TIMES = EngineTimes(start_s=120, silence_s=2.5, restarts=3)
PROMPT = list(range(100, 140))
_numbers = itertools.count()


class Recorder:
    """What a sink heard."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.finish: Finish | None = None
        self.refused = ""
        self.died = ""
        self.over = threading.Event()

    def on_output(self, output: TokenOutput) -> None:
        self.ids += [token.id for token in output.tokens]
        if output.finish is not None:
            self.finish = output.finish
            self.over.set()

    def on_refused(self, code: str, message: str) -> None:
        self.refused = code
        self.over.set()

    def on_engine_died(self, detail: str) -> None:
        self.died = detail
        self.over.set()

    def wait(self) -> "Recorder":
        assert self.over.wait(60)
        return self


def command(model: Path) -> EngineCommand:
    settings = ModelSettings(name="tiny", path=model, slots=4, pages=256, threads=1)
    return EngineCommand.of(load(WorkerSettings), settings)


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[EngineProcess]:
    made = EngineProcess(command(tiny_model), TIMES)
    assert made.start().slots == 4
    yield made
    made.close()


def generation(max_tokens: int = 8, **values) -> Generation:
    """With an id that no other has: an engine may still speak of the last one."""
    return msgspec.structs.replace(Generation(f"generation-{next(_numbers)}", PROMPT, Sampling(), max_tokens), **values)


def run(engine: EngineProcess, made: Generation) -> Recorder:
    sink = Recorder()
    engine.submit(made, sink)
    return sink.wait()


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


def test_engine_that_cannot_load_is_given_up_with_its_reason(tmp_path):
    told = []
    made = EngineProcess(command(tmp_path / "none"), replace(TIMES, restarts=0), told.append)
    with pytest.raises(EngineUnavailable, match=r"config\.json"):
        made.start()
    sink = Recorder()
    made.submit(generation(), sink)
    assert sink.wait().died
    made.close()
    assert len(told) == 1


def test_closed_engine_leaves_no_process(tiny_model):
    made = EngineProcess(command(tiny_model), TIMES)
    made.start()
    child = psutil.Process(made.pid)
    made.close()
    assert not child.is_running()
