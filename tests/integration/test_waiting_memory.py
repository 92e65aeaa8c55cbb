"""What a request that waits for its answer costs the process: not the pictures that it brought."""

import base64
import os
import random
import threading
import time
from pathlib import Path

import httpx2
import pytest

from jobs.ports import JobFilter
from jobs.settings import ServiceSettings
from tests.fixtures.api import MODEL, ScriptedWorker
from tests.integration.test_api_process import process, worker

pytestmark = pytest.mark.integration

__all__ = ["worker"]

WAITING = 24
PICTURE_BYTES = 6 * 2**20


def picture(number: int) -> str:
    data = random.Random(number).randbytes(PICTURE_BYTES)
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def chat(url: str) -> dict[str, object]:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": content}]}


def response(url: str) -> dict[str, object]:
    content = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": url}]
    return {"input": [{"role": "user", "content": content}]}


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", chat), ("/v1/responses", response)])
def test_waiting_requests_do_not_hold_their_bodies(
    service_settings: ServiceSettings, worker: ScriptedWorker, path: str, body: object
) -> None:
    assert callable(body)
    with process(service_settings) as (started, url):

        def ask(number: int) -> None:
            with httpx2.Client(timeout=120) as http:
                http.post(url + path, json={"model": MODEL, **body(picture(number))})

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(WAITING)]
        ask_first = resident_bytes(started.pid)
        for thread in threads:
            thread.start()
            # One after the other: what they need while they are read is another matter.
            until = time.monotonic() + 60
            while len(worker.store.page("default", JobFilter(limit=100))) <= threads.index(thread):
                assert time.monotonic() < until
                time.sleep(0.01)
        time.sleep(1)
        grown = resident_bytes(started.pid) - ask_first
        for _ in threads:
            worker.answer(worker.claim())
        for thread in threads:
            thread.join()
    assert grown < WAITING * PICTURE_BYTES / 2, f"{grown >> 20} MB"
