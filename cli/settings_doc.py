"""Writes docs/settings.md from the settings classes: `python -m cli.settings_doc`. A test holds that it is current."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from api.settings import ApiSettings
from cli.settings import ROOT, CommandSettings
from jobs.settings import FileSettings, ServiceSettings
from jobs.webhooks.settings import WebhookSettings
from worker.settings import MaintenanceSettings, ModelSettings, TensorRTSettings, WorkerSettings

TARGET = ROOT / "docs" / "settings.md"

SECTIONS: tuple[tuple[str, type[FileSettings]], ...] = (
    ("Every process", ServiceSettings),
    ("API", ApiSettings),
    ("Worker", WorkerSettings),
    ("Maintenance", MaintenanceSettings),
    ("Webhooks", WebhookSettings),
    ("The `vlmq` command", CommandSettings),
)

HEAD = """# Settings

Written by `make docs` from the settings classes; do not edit.

Environment over `conf/server.toml` over default. Secrets belong in the environment only. Lists are arrays in the file
and comma-separated in the environment. A wrong value stops the process with a message that names key and value.
"""


def render() -> str:
    parts = [HEAD]
    for title, kind in SECTIONS:
        prefix = str(kind.model_config.get("env_prefix", ""))
        parts.append(f"\n## {title}: table `[{kind.table}]`, environment `{prefix}…`\n\n{_table(kind, prefix)}")
    parts.append(f"\n## A model: `conf/models/<name>.toml`, only what differs\n\n{_table(ModelSettings, '')}")
    parts.append(f"\n### Its table `[tensorrt_llm]`\n\n{_table(TensorRTSettings, '')}")
    return "".join(parts)


def _table(kind: type[BaseModel], prefix: str) -> str:
    lines = ["| key | default | what |\n|---|---|---|\n"]
    for name, info in kind.model_fields.items():
        if name == "name":  # a model's name is its file's
            continue
        environment = f"<br>`{prefix}{name.upper()}`" if prefix else ""
        lines.append(f"| `{name}`{environment} | {_default(info)} | {(info.description or '').replace('|', '∣')} |\n")
    return "".join(lines)


def _default(info: FieldInfo) -> str:
    value: Any = info.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ("", ()) or isinstance(value, BaseModel):
        return "–"
    if isinstance(value, Path):
        value = str(value.relative_to(ROOT) if value.is_relative_to(ROOT) else value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(f"written: {TARGET.relative_to(ROOT)}")
