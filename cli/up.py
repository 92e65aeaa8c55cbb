"""`vlmq up`: everything on one machine as one supervised tree, until a signal ends it.

Order: services, tables, programs, ready; and back again. Whatever ends it, the last of the tree goes with it.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import httpx2
import msgspec

from cli import backing, plan
from cli.backing import Backing
from cli.errors import CommandError
from cli.folder import Folder, Running, describe
from cli.interrupts import Interrupts
from cli.plan import Options
from cli.settings import ROOT, environment
from cli.supervisor import ProgramFailed, Supervisor
from cli.terminal import Lines, console, step
from jobs import schema
from jobs.settings import load
from worker.settings import ModelSettings, WorkerSettings

START_LIMIT_S = 900.0
TINY = "vlmq-tiny"


def run(options: Options) -> int:
    """Runs until a signal asks to stop. Returns the exit status. Raises CommandError when something is in the way."""
    folder = Folder(options.folder)
    with folder.held(), Interrupts() as interrupts:
        options = _with_ports(options)
        for model in options.models:
            _checkpoint(model)
        try:
            with backing.backing(folder) as behind:
                _run_on(behind, folder, options, interrupts)
        except CommandError:
            if not interrupts.asked:
                raise
            return 130  # Ctrl-C reached what was just starting, and it failed for that
    return 130 if interrupts.forced else 0


def _run_on(behind: Backing, folder: Folder, options: Options, interrupts: Interrupts) -> None:
    with step("bringing the tables up to date"):
        schema.migrate(behind.services.database_url)
    lines = Lines(options.verbose)
    programs = plan.programs(options, behind.services, folder.secret("flower"))
    tree = Supervisor(programs, folder.logs, lines.about, lines.output_of)
    try:
        tree.start()
        if _wait_ready(options, tree, interrupts):
            running = _running(folder, options, behind.services, tree)
            folder.announce(running)
            describe(running, folder)
            console.print("[dim]Ctrl-C stops everything; a second one does not wait for running jobs.[/dim]")
            _watch(folder, running, tree, lambda: behind.revive(lines.about), interrupts)
    except ProgramFailed as exc:
        raise CommandError(f"{exc}\n{exc.tail}") from exc
    finally:
        _stop(tree, interrupts)


def _with_ports(options: Options) -> Options:
    return replace(
        options,
        port=_free(options.port, "--port"),
        flower_port=_free(options.flower_port, "--flower-port"),
    )


def _free(port: int, flag: str) -> int:
    """The port, once nobody listens on it; a free one for 0."""
    with closing(socket.socket()) as probe:
        # As the servers do: a port whose last connections still fade out is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise CommandError(
                f"port {port} on 127.0.0.1 cannot be used ({exc.strerror})", f"choose another one with {flag}"
            ) from exc
        return int(probe.getsockname()[1])


def _checkpoint(model: str) -> None:
    """Sees that the model's weights are there; makes the tiny random ones."""
    path = ROOT / ModelSettings.load(model, load(WorkerSettings).path).path
    if (path / "config.json").exists():
        return
    if model != TINY:
        raise CommandError(f"the checkpoint of {model} is not in {path}", f"see `path` in conf/models/{model}.toml")
    with step(f"making the random checkpoint {TINY}"):
        command = [sys.executable, "-m", "tools.tiny_model", "--out", str(path)]
        made = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise CommandError(f"tools.tiny_model failed:\n{made.stderr[-2000:]}")


def _wait_ready(options: Options, tree: Supervisor, interrupts: Interrupts) -> bool:
    """True once everything answers; False when asked to stop before that."""
    waiting = ["api", "flower"]
    probes = {
        "api": f"http://127.0.0.1:{options.port}/readyz",
        "flower": f"http://127.0.0.1:{options.flower_port}/healthcheck",
    }
    end = time.monotonic() + START_LIMIT_S
    with step("starting API, workers, maintenance and Flower") as status:
        while not interrupts.wait(0.1):
            if time.monotonic() > end:
                raise CommandError(f"not ready within {START_LIMIT_S:.0f} s: {', '.join(waiting)}")
            waiting = [name for name in waiting if name not in probes or not _answers(probes[name])]
            left = sorted({*tree.starting(), *waiting})
            if not left:
                return True
            status.update(f"waiting for {', '.join(left)} …")
            waiting = [name for name in left if name in probes]
    return False


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def _running(folder: Folder, options: Options, services: plan.Services, tree: Supervisor) -> Running:
    return Running(
        pid=os.getpid(),
        url=f"http://127.0.0.1:{options.port}",
        flower_url=f"http://127.0.0.1:{options.flower_port}",
        flower_password=folder.secret("flower"),
        database_url=services.database_url,
        redis_url=services.redis_url,
        models=options.models,
        processes=tree.processes(),
    )


def _watch(
    folder: Folder, running: Running, tree: Supervisor, revive: Callable[[], None], interrupts: Interrupts
) -> None:
    """Until a signal comes. Keeps what `vlmq status` shows true over restarts."""
    while not interrupts.wait(0.2):
        revive()
        tree.tick()
        if tree.processes() != running.processes:
            running = msgspec.structs.replace(running, processes=tree.processes())
            folder.announce(running)


def _stop(tree: Supervisor, interrupts: Interrupts) -> None:
    with step("stopping workers, API, Flower and maintenance"):
        tree.stop(lambda: interrupts.forced)
