"""Settings that both sides need: where the services are, which models are served, how long things live.

Environment (`VLMQ_<KEY>`) over `conf/server.toml` over the default. Read once, typed, frozen; a wrong value stops the
process with a message that names key and value.
"""

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import pydantic
import pydantic_settings
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jobs.service_url import checked_redis_url

PREFIX = "VLMQ_"
CONF = Path(__file__).resolve().parent.parent / "conf"


class SettingsError(Exception):
    """A setting is wrong; the message says which, what it was unless that may be a secret, and what it may be."""


def _split(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A list in the file, comma-separated in the environment."""


class FileSettings(BaseSettings):
    """One table of `conf/server.toml`, under environment variables of one prefix."""

    table: ClassVar[str]
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        tables = tomllib.loads((CONF / "server.toml").read_text())
        return init_settings, env_settings, InitSettingsSource(settings_cls, tables.get(cls.table, {}))


class ServiceSettings(FileSettings):
    """Table `[services]`, environment `VLMQ_…`. What may hold a password has no place in its `repr`, nor in errors."""

    table: ClassVar[str] = "services"

    database_url: str = Field(
        default="", repr=False, description="postgresql://… or postgresql:///db?host=/socket/folder. Required."
    )
    redis_url: Annotated[str, AfterValidator(checked_redis_url)] = Field(
        default="",
        repr=False,
        description="redis://host/db, rediss://host/db or unix:///path.sock?db=0, with user:password@ in front of host "
        "or path. Required. With rediss:// certificates are checked, unless it ends with ?ssl_cert_reqs=none.",
    )
    redis_prefix: str = Field(default="vlmq:", description="Every Redis key starts with it.")
    blob_url: str = Field(
        default="var/blobs", repr=False, description="fsspec URL of the media store: a folder or s3://…"
    )
    spool_folder: str = Field(
        default="", description="Where uploads and outputs of batches lie until they are blobs; empty: the system's."
    )
    models: Names = Field(default=("vlmq-demo",), min_length=1, description="Served models: files in conf/models.")
    lease_s: float = Field(default=10.0, gt=0, description="Silence after which a worker's jobs are taken back.")
    heartbeat_s: float = Field(default=2.0, gt=0, description="How often a worker writes its row.")
    max_attempts: int = Field(default=3, ge=1, description="Lost attempts after which a job is quarantined.")
    retention_s: float = Field(default=7 * 86400.0, gt=0, description="How long a terminal job is kept.")
    unstored_s: float = Field(
        default=900.0, gt=0, description="How long what was not to be stored can be read after its end, at most."
    )
    stream_ttl_s: int = Field(default=900, ge=1, description="How long Redis keeps the log of an ended job.")


def environment_without_ours() -> dict[str, str]:
    """For a process that works on what strangers sent: none of our settings, among which are passwords."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


S = TypeVar("S", bound=BaseSettings)


def load(kind: type[S], **overrides: Any) -> S:
    """Reads settings. Raises SettingsError that names every wrong key with its value, and what an unknown one may
    have meant. The value of what is secret, or unknown and therefore perhaps secret, is not shown."""
    _refuse_unknown(kind)
    try:
        return kind(**overrides)
    except pydantic.ValidationError as exc:
        prefix = str(kind.model_config.get("env_prefix", ""))
        lines = [fault_of(kind, e, f" (environment {prefix}{_name_of(e).upper()})") for e in exc.errors()]
        # The driver's own words would show the values in a traceback.
        raise SettingsError("wrong settings:\n  " + "\n  ".join(lines)) from None
    except pydantic_settings.SettingsError as exc:
        raise SettingsError(f"wrong settings: {exc}") from None


def fault_of(kind: type[pydantic.BaseModel], error: Any, where: str = "") -> str:
    """One of a ValidationError's errors as a line."""
    name = _name_of(error)
    if not name:
        return str(error["msg"])
    key = ".".join(str(part) for part in error["loc"]) + where
    field = kind.model_fields.get(name)
    # The environment's, that is: a model's file holds no secrets.
    hidden = not field.repr if field is not None else issubclass(kind, BaseSettings)
    if hidden:
        return f"{key}: {error['msg']}"
    return f"{key} = {error['input']!r}: {error['msg']}"


def _name_of(error: Any) -> str:
    """Of the setting; empty where several together are wrong."""
    return str(error["loc"][0]) if error["loc"] else ""


def _refuse_unknown(kind: type[BaseSettings]) -> None:
    """The plain prefix is shared with other tables and with docker-compose.yml: there only what looks like a slip of
    the pen is refused."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    known = [prefix + field.upper() for field in kind.model_fields]
    for name in sorted(os.environ):
        if not name.startswith(prefix) or name in known:
            continue
        meant = get_close_matches(name, known, n=1, cutoff=0.85)
        if meant or prefix != PREFIX:
            hint = f"did you mean {meant[0]}?" if meant else f"there are: {', '.join(known)}"
            raise SettingsError(f"{name} (environment): no such setting; {hint}")
