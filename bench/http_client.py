"""A bare HTTP/1.1 client over asyncio streams: it costs little of the machine that it measures."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds from the request to the first text, and tokens by the server's own count."""

    first_text_s: float
    tokens: int


class Connection:
    """Keeps one connection; requests go one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, asyncio.StreamReader, dict[str, str]]:
        """Sends and reads the head of the answer: status, what follows, headers."""
        return await self._ask("POST", path, json.dumps(body).encode())

    async def get(self, path: str) -> tuple[int, asyncio.StreamReader, dict[str, str]]:
        return await self._ask("GET", path, b"")

    async def _ask(self, method: str, path: str, data: bytes) -> tuple[int, asyncio.StreamReader, dict[str, str]]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        assert self._reader is not None
        fields = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(data))}
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""])
        self._writer.write(head.encode() + data)
        status = int((await self._reader.readline()).split()[1])
        headers: dict[str, str] = {}
        while (line := (await self._reader.readline()).strip()) != b"":
            key, _, value = line.decode().partition(":")
            headers[key.lower()] = value.strip()
        return status, self._reader, headers

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()


async def submit(connection: Connection, body: dict[str, Any]) -> str:
    """One job, not waited for; returns its id."""
    status, reader, headers = await connection.post("/v1/jobs", body)
    text = await reader.readexactly(int(headers["content-length"]))
    assert status in (200, 201, 202), text
    return str(json.loads(text)["id"])


async def follow(port: int, job_id: str) -> str:
    """The type of a job's last event, on a connection of its own."""
    connection = Connection(port)
    try:
        status, reader, _ = await connection.get(f"/v1/jobs/{job_id}/events")
        assert status == 200, await reader.read(2000)
        last = ""
        while not last or last in ("job.queued", "job.in_progress", "job.delta"):
            line = await reader.readline()
            assert line, f"the events of {job_id} broke off behind {last!r}"
            if line.startswith(b"data: "):
                last = json.loads(line[6:])["type"]
        return last
    finally:
        await connection.close()


async def chat(port: int, body: dict[str, Any]) -> Answer:
    """One streamed chat completion on a connection of its own."""
    connection = Connection(port)
    start = time.perf_counter()
    first = 0.0
    tokens = 0
    try:
        status, reader, _ = await connection.post("/v1/chat/completions", body)
        assert status == 200, await reader.read(2000)
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                break
            chunk = json.loads(line[6:])
            if not first and any(choice["delta"].get("content") for choice in chunk["choices"]):
                first = time.perf_counter() - start
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    finally:
        await connection.close()
    return Answer(first, tokens)
