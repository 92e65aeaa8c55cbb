"""`python -m worker`: becomes the Celery worker of the model that the environment names."""

import os
import sys

from jobs.queue import queue_name
from jobs.settings import ServiceSettings, SettingsError, load
from worker.settings import ModelSettings, WorkerSettings


def command(settings: WorkerSettings, model: ModelSettings) -> list[str]:
    """`-E` lets Flower see tasks; mingle and gossip would only make starts slow and Redis busy."""
    return [
        *(sys.executable, "-m", "celery", "-A", "worker.app", "worker"),
        *("-P", "threads", "-c", str(model.job_threads), "-Q", queue_name(model.name), "-E"),
        *("--without-mingle", "--without-gossip", "--loglevel", settings.log_level),
        *("-n", f"{model.name}-{os.getpid()}@%h"),
    ]


def main() -> None:
    """Never returns."""
    try:
        load(ServiceSettings)
        settings = load(WorkerSettings)
        model = ModelSettings.of(settings)
    except SettingsError as exc:
        sys.exit(f"worker: {exc}")
    os.execv(sys.executable, command(settings, model))


if __name__ == "__main__":
    main()
