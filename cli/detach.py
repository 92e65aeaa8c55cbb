"""`vlmq up` as a process of its own: started, waited for, stopped."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cli import tether
from cli.errors import CommandError
from cli.folder import Folder, Running
from cli.plan import Options
from cli.settings import ROOT, environment
from cli.terminal import step

START_LIMIT_S = 900.0
STOP_LIMIT_S = 120.0


def start(options: Options, tethered: bool = False) -> Running:
    """Starts `vlmq up` in the background and returns once everything is ready. `tethered`: it dies with us, so call
    from the main thread. Raises CommandError with the end of its log when it does not come up."""
    folder = Folder(options.folder)
    if folder.busy():
        raise CommandError(f"vlmq already runs in {folder.path}", "see `vlmq status`")
    folder.logs.mkdir(parents=True, exist_ok=True)
    log = folder.logs / "up.log"
    argv = _command(options)
    with log.open("wb") as out:
        process = subprocess.Popen(
            tether.command(argv) if tethered else argv,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with step("starting vlmq") as status:
            return _wait(folder, process, log, status.update)
    except BaseException:
        # Also for Ctrl-C: what nobody waits for any more must not come up later.
        process.terminate()
        raise


def _wait(folder: Folder, process: subprocess.Popen[bytes], log: Path, show: Callable[[str], None]) -> Running:
    end = time.monotonic() + START_LIMIT_S
    while (running := folder.running()) is None:
        lines = log.read_text(errors="replace").splitlines()
        if process.poll() is not None:
            raise CommandError("vlmq did not start:\n" + "\n".join(lines[-20:]))
        if time.monotonic() > end:
            raise CommandError(f"vlmq was not ready within {START_LIMIT_S:.0f} s; its log: {log}")
        if lines:
            show(lines[-1])
        time.sleep(0.1)
    return running


def stop(folder: Folder) -> bool:
    """Stops what runs in the folder. False when nothing did."""
    if not folder.busy():
        return False
    with step("stopping vlmq"):
        return folder.stop(STOP_LIMIT_S)


def _command(options: Options) -> tuple[str, ...]:
    models = [word for model in options.models for word in ("--model", model)]
    return (
        *(sys.executable, "-m", "cli.main", "up", "--folder", str(options.folder.absolute())),
        *("--port", str(options.port), "--flower-port", str(options.flower_port)),
        *("--workers", str(options.workers), *models),
    )
