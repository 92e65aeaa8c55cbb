"""What `vlmq ask` and `vlmq submit` are asked: the options that they share, as a job's body."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from cli import chat, server
from cli.client import Client, Json
from cli.errors import CommandError


class Detail(StrEnum):
    AUTO = "auto"
    LOW = "low"
    HIGH = "high"


Question = Annotated[str, typer.Argument(help="What to ask.")]
Pictures = Annotated[list[str] | None, typer.Option("-i", "--image", help="A picture file or URL; may be repeated.")]
Videos = Annotated[list[str] | None, typer.Option("-v", "--video", help="A video file or URL; may be repeated.")]
DetailOption = Annotated[Detail | None, typer.Option("--detail", help="How closely pictures are seen. Default: auto.")]
ModelOption = Annotated[str, typer.Option("--model", help="Default: the first one that the server names.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer. Default: the context.")]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0, max=2, help="0 is greedy. Default: 1.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes a sampled answer repeatable.")]
Choices = Annotated[int | None, typer.Option("--n", min=1, help="How many answers. Default: 1.")]
SchemaFile = Annotated[
    Path | None, typer.Option("--schema", metavar="FILE", help="A JSON schema that the answer is held to.")
]


@dataclass(frozen=True, slots=True)
class Asked:
    question: str
    pictures: list[str] | None
    videos: list[str] | None
    detail: Detail | None
    model: str
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    n: int | None
    schema: Path | None

    def body(self, client: Client, priority: str | None) -> Json:
        """Raises CommandError for a file that cannot be sent, or a detail of no picture."""
        if self.detail is not None and not self.pictures:
            raise CommandError("--detail is about pictures: name one with --image", code=2)
        response_format = None if self.schema is None else _format_of(self.schema)
        return chat.body(
            server.model(client, self.model),
            self.question,
            self.pictures or [],
            self.videos or [],
            self.detail,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            n=self.n,
            response_format=response_format,
            priority=priority,
        )


def _format_of(file: Path) -> Json:
    try:
        schema: Any = msgspec.json.decode(file.read_bytes())
    except OSError as exc:
        raise CommandError(f"cannot read the schema {file}: {exc.strerror}") from exc
    except msgspec.DecodeError as exc:
        raise CommandError(f"{file} is not JSON: {exc}") from exc
    if not isinstance(schema, dict):
        raise CommandError(f"{file} holds no JSON schema: it must be an object")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
