"""From checked settings to a running worker, with a clear refusal for whatever stands in the way."""

import logging
from collections.abc import Callable

from jobs.errors import Unavailable
from jobs.settings import ServiceSettings, SettingsError
from worker.engine.config import CheckpointError
from worker.errors import BootRefused, EngineUnavailable
from worker.runtime import Runtime, boot
from worker.settings import ModelSettings, WorkerSettings
from worker.tokenizer import TokenizerError

log = logging.getLogger(__name__)


def boot_worker(
    services: ServiceSettings, settings: WorkerSettings, model: ModelSettings, on_given_up: Callable[[str], None]
) -> Runtime:
    """Raises BootRefused."""
    try:
        log.info("loading %s from %s", model.name, model.path, extra={"action": "loading"})
        return boot(services, settings, model, on_given_up)
    except (SettingsError, CheckpointError, TokenizerError, EngineUnavailable, Unavailable) as exc:
        raise BootRefused(str(exc)) from exc
