"""`vlmq up` and the commands that talk to it, as a person runs them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from cli.folder import Folder, Running
from cli.settings import ROOT, environment
from tests.fixtures.eventually import eventually
from tests.fixtures.processes import has_ended

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CAT = ROOT / "cli" / "pictures" / "cat.jpg"
WHERE = ("--port", "0", "--flower-port", "0", "--model", "vlmq-tiny")
LONG = ("--max-tokens", "3900", "--temperature", "1")


def vlmq(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=ROOT,
        env={**environment(), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Up:
    """A `vlmq up` in the foreground of a session of its own."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.place = Folder(folder)
        self.output = folder.parent / f"{folder.name}.out"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [*(sys.executable, "-m", "cli.main", "up", "--folder", str(folder)), *WHERE],
                cwd=ROOT,
                env={**environment(), "VLMQ_WORKER_PATH": str(checkpoint), "VLMQ_WORKER_GRACE_S": "2"},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually("everything is ready", self._ready, 240)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.tree = psutil.Process(self.process.pid).children(recursive=True)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        return self.place.running() is not None

    @property
    def running(self) -> Running:
        running = self.place.running()
        assert running is not None, self.output.read_text()
        return running

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return vlmq(*words, "--url", self.running.url)

    def left(self) -> list[str]:
        """What still runs of the tree."""
        return [line for process in self.tree if (line := _command_line(process))]


def _command_line(process: psutil.Process) -> str:
    """Empty when it has ended, also while it is asked."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if not has_ended(process):
            return " ".join(process.cmdline()) or process.name()
    return ""


@contextlib.contextmanager
def started(checkpoint: Path) -> Iterator[Up]:
    # Not in pytest's own folder: every pytest that starts closes that one to PostgreSQL's user.
    with tempfile.TemporaryDirectory(prefix="vlmq-up-") as folder:
        up = Up(Path(folder) / "var", checkpoint)
        yield up
        if up.process.poll() is None:
            up.process.terminate()
        up.process.wait(90)
        eventually("every process is gone", lambda: not up.left(), 60)


@pytest.fixture(scope="module")
def up(tiny_model: Path) -> Iterator[Up]:
    with started(tiny_model) as up:
        yield up


def test_status_names_the_programs_and_where_they_are(up: Up) -> None:
    shown = vlmq("status", "--folder", str(up.place.path))
    assert shown.returncode == 0, shown.stderr
    assert up.running.url in shown.stdout
    for name in ("api", "maintenance", "worker-1", "flower"):
        assert re.search(rf"{name} +pid \d+", shown.stdout)


def test_up_a_second_time_in_the_folder_says_where_the_first_is(up: Up) -> None:
    second = vlmq("up", "--folder", str(up.place.path), "--port", "0", "--flower-port", "0")
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert up.running.url in second.stderr


def test_up_detached_a_second_time_is_content(up: Up) -> None:
    second = vlmq("up", "--detach", "--folder", str(up.place.path))
    assert second.returncode == 0, second.stderr
    assert up.running.url in second.stdout


def test_up_on_a_port_that_is_taken_names_port_and_flag(up: Up, tmp_path: Path) -> None:
    port = up.running.url.rpartition(":")[2]
    for flag, other in (("--port", "--flower-port"), ("--flower-port", "--port")):
        refused = vlmq("up", "--folder", str(tmp_path / "x"), flag, port, other, "0")
        assert refused.returncode == 1
        assert f"port {port}" in refused.stderr
        assert f"choose another one with {flag}\n" in refused.stderr


def test_flower_asks_for_its_password_and_shows_the_worker(up: Up) -> None:
    url = f"{up.running.flower_url}/workers?json=1"
    assert httpx2.get(url, timeout=30).status_code == 401
    answer = httpx2.get(url, auth=("vlmq", up.running.flower_password), timeout=30)
    assert answer.status_code == 200
    assert answer.json()["data"]


@pytest.mark.parametrize(
    "path",
    [
        *("worker/shutdown/x", "worker/pool/grow/x", "worker/pool/restart/x", "worker/queue/add-consumer/x"),
        *("task/revoke/x", "task/rate-limit/x", "task/timeout/x", "task/abort/x"),
        *("task/apply/vlmq.run_job", "task/async-apply/vlmq.run_job", "task/send-task/vlmq.run_job"),
    ],
)
def test_flower_changes_nothing_even_with_its_password(up: Up, path: str) -> None:
    asked = httpx2.post(
        f"{up.running.flower_url}/api/{path}",
        auth=("vlmq", up.running.flower_password),
        json={"args": ["x"]},
        timeout=30,
    )
    assert asked.status_code == 404


def test_ask_writes_the_answer_to_stdout_and_the_rest_to_stderr(up: Up) -> None:
    asked = up.ask("ask", "What is this?", "-i", str(CAT), "--max-tokens", "6", "--temperature", "0")
    assert asked.returncode == 0, asked.stderr
    job_id = re.search(r"job_\w+", asked.stderr)
    assert job_id is not None
    job = httpx2.get(f"{up.running.url}/v1/jobs/{job_id.group()}", timeout=30).json()
    assert asked.stdout.rstrip("\n") == job["output"].rstrip("\n")
    assert job["status"] in ("completed", "incomplete")


def test_ask_interrupted_cancels_its_job(up: Up) -> None:
    asking = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "ask", "Tell a long story.", *LONG, "--url", up.running.url],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Shells start what runs in the background with SIGINT ignored, and programs inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with asking:
        assert asking.stdout is not None
        asking.stdout.read(1)
        asking.send_signal(signal.SIGINT)
        _, stderr = asking.communicate(timeout=60)
    assert asking.returncode == 130, stderr
    assert re.search(rb"job_\w+ cancelled", stderr)


def test_submit_prints_an_id_that_jobs_shows_with_timeline_and_attempts(up: Up) -> None:
    submitted = up.ask("submit", "Say hello.", "--max-tokens", "3")
    assert submitted.returncode == 0, submitted.stderr
    job_id = submitted.stdout.strip()
    httpx2.get(f"{up.running.url}/v1/jobs/{job_id}?wait=60", timeout=90)
    shown = up.ask("jobs", job_id)
    assert re.search(r"queued .* → claimed \+.* → .*first token \+.* → done \+", shown.stdout)
    assert "attempt 1" in shown.stdout
    assert job_id in up.ask("jobs").stdout


def test_jobs_cancel_and_unknown_ids(up: Up) -> None:
    job_id = up.ask("submit", "Tell a long story.", *LONG).stdout.strip()
    assert "cancelled" in up.ask("jobs", "cancel", job_id).stdout
    unknown = up.ask("jobs", "job_unknown")
    assert unknown.returncode == 1
    assert "404" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    assert "no dead jobs" in up.ask("jobs", "--dead").stdout


def test_up_restarts_a_program_that_is_killed(up: Up) -> None:
    before = up.running.processes["api"]
    os.kill(before, signal.SIGKILL)
    eventually("the API runs again", lambda: up.running.processes.get("api", before) != before)
    eventually("it answers again", lambda: up.ask("models", "--served").returncode == 0)
    assert "killed by signal 9" in up.output.read_text()


def test_up_restarts_an_embedded_server_that_is_killed(up: Up) -> None:
    postmaster = next(p for p in up.tree if p.name() == "postgres" and "-D" in p.cmdline())
    postmaster.kill()
    eventually("the death is told", lambda: "postgres     died" in up.output.read_text())
    eventually("it answers again", lambda: up.ask("jobs").returncode == 0)
    up.tree += psutil.Process(up.process.pid).children(recursive=True)


def test_keys_open_the_door_that_the_first_one_closes(up: Up) -> None:
    folder = ("--folder", str(up.place.path))
    assert "no keys" in vlmq("keys", "list", *folder).stdout
    secret = vlmq("keys", "create", "laptop", *folder).stdout.strip()

    def refused() -> bool:
        return "401" in up.ask("models", "--served").stderr

    eventually("it is refused", refused, 30)
    assert vlmq("models", "--served", "--url", up.running.url, VLMQ_CLI_KEY=secret).stdout.strip() == "vlmq-tiny"
    listed = vlmq("keys", "list", *folder).stdout
    key_id = re.search(r"key_\w+", listed)
    assert key_id is not None
    assert "laptop" in listed
    assert secret not in listed
    assert "is revoked" in vlmq("keys", "revoke", key_id.group(), *folder).stdout
    eventually(
        "the key is refused",
        lambda: "401" in vlmq("models", "--served", "--url", up.running.url, "--key", secret).stderr,
        30,
    )


def test_down_stops_everything_and_a_second_one_has_nothing_to_do(up: Up) -> None:
    folder = ("--folder", str(up.place.path))
    stopped = vlmq("down", *folder)
    assert stopped.returncode == 0, stopped.stderr
    assert up.process.wait(60) == 0
    eventually("every process is gone", lambda: not up.left(), 30)
    assert "nothing runs" in vlmq("down", *folder).stdout


def test_up_killed_leaves_no_process_behind(tiny_model: Path) -> None:
    with started(tiny_model) as up:
        assert any("postgres" in p.name() for p in up.tree)
        up.process.kill()
