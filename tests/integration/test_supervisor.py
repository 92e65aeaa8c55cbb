"""The supervisor with real programs: small ones, that do what the test needs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.program import Program
from cli.settings import ROOT, environment
from cli.supervisor import ProgramFailed, Supervisor
from tests.fixtures.processes import has_ended

pytestmark = pytest.mark.integration

FOREVER = "import time; print('ready', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
PARENT = (
    "import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "print('child', c.pid, flush=True); print('ready', flush=True); time.sleep(600)"
)


def program(name: str, source: str, stage: int = 0, stop_s: float = 10.0) -> Program:
    return Program(name, (sys.executable, "-c", source), environment(), ROOT, ready="ready", stage=stage, stop_s=stop_s)


class Watched:
    """A supervisor whose reports are kept."""

    def __init__(self, folder: Path, *programs: Program) -> None:
        self.lines: list[tuple[str, str]] = []
        self.supervisor = Supervisor(programs, folder / "logs", self._keep, self._keep)

    def _keep(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def start(self) -> None:
        self.supervisor.start()
        self.until(lambda: not self.supervisor.starting())

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.lines
            time.sleep(0.02)

    def tick_until(self, condition: Callable[[], bool]) -> None:
        def ticked() -> bool:
            self.supervisor.tick()
            return condition()

        self.until(ticked)

    def said(self, text: str) -> bool:
        return any(text in line for _, line in self.lines)

    def stop(self, forced: bool = False) -> None:
        self.supervisor.stop(lambda: forced)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(*programs: Program) -> Watched:
        made.append(Watched(tmp_path, *programs))
        return made[-1]

    yield make
    for watched in made:
        watched.stop(forced=True)


def test_supervisor_program_killed_is_started_again_and_said_so(watch: Callable[..., Watched]) -> None:
    watched = watch(program("one", FOREVER))
    watched.start()
    first = watched.supervisor.processes()["one"]
    os.kill(first, signal.SIGKILL)
    watched.tick_until(lambda: watched.supervisor.processes().get("one", first) != first)
    assert watched.said("killed by signal 9")
    assert watched.said("started again")


def test_supervisor_program_that_crashes_again_waits_longer_each_time(watch: Callable[..., Watched]) -> None:
    watched = watch(program("crash", "print('ready', flush=True); import time; time.sleep(0.3); raise SystemExit(3)"))
    watched.start()
    watched.tick_until(lambda: watched.said("starts again in 2.0 s"))
    waits = [line.split("again in ")[1].split(" s")[0] for _, line in watched.lines if "ended with status 3" in line]
    assert waits == ["0.5", "1.0", "2.0"]


def test_supervisor_program_that_ends_before_it_is_ready_fails_with_the_end_of_its_log(
    watch: Callable[..., Watched],
) -> None:
    watched = watch(program("fine", FOREVER), program("broken", "raise SystemExit('wrong settings: port = x')"))
    with pytest.raises(ProgramFailed, match="broken ended with status 1") as caught:
        watched.start()
    assert "wrong settings: port = x" in caught.value.tail


def test_supervisor_stop_ends_stages_in_order(watch: Callable[..., Watched], tmp_path: Path) -> None:
    order = tmp_path / "order"
    source = (
        "import signal, sys, time\n"
        f"def end(*_):\n  time.sleep(0.2); open({str(order)!r}, 'a').write(NAME + ' '); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(600)"
    )
    watched = watch(
        program("last", f"NAME='last'\n{source}", stage=2),
        program("first", f"NAME='first'\n{source}", stage=0),
        program("middle", f"NAME='middle'\n{source}", stage=1),
    )
    watched.start()
    watched.stop()
    assert order.read_text().split() == ["first", "middle", "last"]


def test_supervisor_stop_kills_a_program_that_ignores_sigterm(watch: Callable[..., Watched]) -> None:
    watched = watch(program("deaf", DEAF, stop_s=0.5))
    watched.start()
    pid = watched.supervisor.processes()["deaf"]
    watched.stop()
    assert has_ended(pid)
    assert watched.said("did not end within")


def test_supervisor_forced_stop_does_not_wait(watch: Callable[..., Watched]) -> None:
    watched = watch(program("deaf", DEAF, stop_s=600))
    watched.start()
    pid = watched.supervisor.processes()["deaf"]
    watched.stop(forced=True)
    assert has_ended(pid)


def test_supervisor_stop_leaves_nothing_of_a_programs_group(watch: Callable[..., Watched]) -> None:
    watched = watch(program("parent", PARENT))
    watched.start()
    grandchild = next(int(line.split()[1]) for _, line in watched.lines if line.startswith("child "))
    watched.stop()
    watched.until(lambda: has_ended(grandchild))


def test_supervisor_logs_are_kept_whole_over_restarts(watch: Callable[..., Watched], tmp_path: Path) -> None:
    watched = watch(program("one", FOREVER))
    watched.start()
    os.kill(watched.supervisor.processes()["one"], signal.SIGKILL)
    watched.tick_until(lambda: (tmp_path / "logs" / "one.log").read_text().count("ready") == 2)


def test_supervisor_killed_with_sigkill_takes_its_programs_along(tmp_path: Path) -> None:
    source = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, '.')\n"
        "from tests.integration.test_supervisor import FOREVER, Watched, program\n"
        "w = Watched(Path(sys.argv[1]), program('one', FOREVER)); w.start()\n"
        "print(w.supervisor.processes()['one'], flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not has_ended(pid)
        owner.kill()
    end = time.monotonic() + 30
    while not has_ended(pid):
        assert time.monotonic() < end
        time.sleep(0.02)
