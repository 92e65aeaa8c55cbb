"""Which manner of calling functions a served model has, by its file in conf/models."""

import tomllib
from pathlib import Path

from jobs.settings import CONF, SettingsError
from jobs.tools import ToolFormat


def tool_format_of(model: str, conf: Path = CONF) -> ToolFormat | None:
    """None: the model has none, or no file here. Raises SettingsError naming file, key and value."""
    file = conf / "models" / f"{model}.toml"
    if Path(model).name != model or not file.is_file():
        return None
    try:
        named = tomllib.loads(file.read_text(encoding="utf-8")).get("tool_format")
        return None if named is None else ToolFormat(named)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"conf/models/{file.name}: {exc}") from exc
    except ValueError as exc:
        known = ", ".join(each.value for each in ToolFormat)
        raise SettingsError(f"conf/models/{file.name}: tool_format = {named!r}: there are: {known}") from exc
