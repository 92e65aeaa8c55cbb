"""From the environment to a running worker, with a clear refusal for whatever stands in the way."""

import logging
from collections.abc import Callable

from jobs.errors import Unavailable
from jobs.settings import ServiceSettings, SettingsError, load
from worker.engine.config import CheckpointError
from worker.errors import EngineUnavailable
from worker.runtime import Runtime, boot
from worker.settings import ModelSettings, WorkerSettings
from worker.tokenizer import TokenizerError

log = logging.getLogger(__name__)


class BootRefused(Exception):
    """The worker cannot start; the message says why, for whoever started it."""


def boot_worker(check_queue: Callable[[str], None], on_given_up: Callable[[str], None]) -> Runtime:
    """`check_queue` is told the model's name before anything is loaded. Raises BootRefused."""
    try:
        services, settings = load(ServiceSettings), load(WorkerSettings)
        model = ModelSettings.load(settings.model, settings.path)
        check_queue(model.name)
        log.info("loading %s from %s", model.name, model.path, extra={"action": "loading"})
        return boot(services, settings, model, on_given_up)
    except (SettingsError, CheckpointError, TokenizerError, EngineUnavailable, Unavailable) as exc:
        raise BootRefused(str(exc)) from exc
