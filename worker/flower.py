"""`python -m worker.flower`: Flower with the pages and routes that show, without those that change something.

Flower's own would let whoever has its password end workers, revoke tasks and send messages.
"""

import sys

from celery.bin.celery import main as celery
from flower import urls
from flower.api import control, tasks

from jobs.settings import ServiceSettings, SettingsError, load

_CHANGING = (control.ControlHandler, tasks.TaskApply, tasks.TaskAsyncApply, tasks.TaskSend, tasks.TaskAbort)


def take_changes_away() -> None:
    """Of the routes that every Flower of this process is made with."""
    urls.handlers[:] = [route for route in urls.handlers if not issubclass(_target(route), _CHANGING)]


def _target(route: object) -> type:
    target = route[1] if isinstance(route, tuple) else route.target  # type: ignore[attr-defined]
    assert isinstance(target, type)
    return target


def main() -> None:
    try:
        load(ServiceSettings)
    except SettingsError as exc:
        sys.exit(f"flower: {exc}")
    take_changes_away()
    sys.argv = ["celery", "-A", "worker.app", "flower"]
    celery()


if __name__ == "__main__":
    main()
