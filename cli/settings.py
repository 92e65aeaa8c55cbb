"""What the command is told by the environment: where the server is, and what its children inherit.

The only file of `cli` that reads the environment.
"""

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from jobs.settings import CONF, FileSettings

ROOT = CONF.parent
"""The checkout: programs run here, so that relative paths in `conf/` mean the same from everywhere."""


class CommandSettings(FileSettings):
    """Table `[cli]`, environment `VLMQ_CLI_…`."""

    table: ClassVar[str] = "cli"
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VLMQ_CLI_")

    url: str = Field(default="", description="The server that `vlmq ask` and its like talk to; empty: the running one.")
    key: str = Field(default="", repr=False, description="The API key they send.")
    folder: Path = Field(default=ROOT / "var", description="Where `vlmq up` keeps data, logs and sockets.")


def environment() -> dict[str, str]:
    """What a child process inherits. Its output must not wait in a buffer: it is shown while it runs."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}
