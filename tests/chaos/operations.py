"""What one client does, each through another door of the API, and what it must be told whatever dies meanwhile."""

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.chaos.client import PATIENCE_S, TERMINAL, Client, GaveUp, Seen, data_of
from tests.chaos.requests import Request, long_request

ENDS_WELL = frozenset({"completed", "incomplete"})
ENDED = frozenset(TERMINAL)
BATCH_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class Turn:
    """One operation of the plan: drawn before anything runs, so that a seed replays it."""

    number: int
    kind: str
    request: Request
    seed: int
    hook: str
    """Address of the webhook receiver."""

    @property
    def name(self) -> str:
        return f"{self.number:05d}-{self.kind}"

    def seen(self, expected: frozenset[str] = ENDS_WELL) -> Seen:
        return Seen(self.name, self.request.name, expected)

    def body(self, **more: Any) -> dict[str, Any]:
        return {**self.request.chat(), "metadata": {"operation": self.name}, **more}


Operation = Callable[[Client, Turn, random.Random], Seen]


def chat(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """Waits for the whole answer."""
    seen = turn.seen()
    answer = client.call(seen, "POST", "/v1/chat/completions", turn.body(), key=client.key())
    if answer.status_code != 200:
        seen.complain(f"answered {answer.status_code}: {answer.text[:300]}")
        return seen
    body = answer.json()
    seen.job_ids.add(body["id"])
    seen.texts.append(body["choices"][0]["message"]["content"])
    return seen


def chat_stream(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """A stream that breaks off is asked for again with the same key, and comes again from its beginning."""
    seen, key = turn.seen(), client.key()
    while True:
        text, ended = "", False
        try:
            with client.post_stream("/v1/chat/completions", turn.body(stream=True), key) as answer:
                if answer.status_code == 200:
                    for chunk in data_of(answer, client.stopped):
                        if "error" in chunk:
                            break
                        seen.job_ids.add(chunk["id"])
                        for choice in chunk["choices"]:
                            text += choice["delta"].get("content") or ""
                            ended |= choice["finish_reason"] is not None
                elif answer.status_code not in (409, 429, 503):
                    answer.read()
                    seen.complain(f"answered {answer.status_code}: {answer.text[:300]}")
                    return seen
        except httpx2.TransportError:
            pass
        if ended:
            seen.texts.append(text)
            return seen
        seen.partial_texts.append(text)
        seen.retries += 1
        if seen.retries > 300 or client.stopped():
            raise GaveUp(f"/v1/chat/completions: the stream never came to its end; last: {text[-100:]!r}")
        client.pause()


def poll(client: Client, turn: Turn, dice: random.Random) -> Seen:
    seen = turn.seen()
    job_id = _submit(client, seen, turn.body())
    _until_ended(client, seen, job_id)
    return seen


def follow(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """Reads the events while it runs, again afterwards, and the row."""
    seen = turn.seen()
    job_id = _submit(client, seen, turn.body())
    for _ in range(2):
        events = client.follow(seen, f"/v1/jobs/{job_id}/events", "sequence", "starting_after", _is_end)
        seen.texts.append("".join(e["text"] for e in events if e["type"] == "job.delta"))
        seen.states += [e["type"].removeprefix("job.") for e in events if _is_end(e)]
    _until_ended(client, seen, job_id)
    return seen


def background(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """A response in the background, its stream read over several connections."""
    seen = turn.seen()
    body = {**turn.request.response(), "background": True, "metadata": {"operation": turn.name}}
    answer = client.call(seen, "POST", "/v1/responses", body, key=client.key())
    if answer.status_code != 200:
        seen.complain(f"answered {answer.status_code}: {answer.text[:300]}")
        return seen
    job_id = answer.json()["id"]
    seen.job_ids.add(job_id)
    ends = tuple(f"response.{state}" for state in TERMINAL)
    events = client.follow(
        seen, f"/v1/responses/{job_id}?stream=true", "sequence_number", "starting_after", lambda e: e["type"] in ends
    )
    seen.texts.append("".join(e["delta"] for e in events if e["type"] == "response.output_text.delta"))
    if events:
        seen.states.append(events[-1]["response"]["status"])
    return seen


def cancel(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """Cancels what would run for long; whatever it had by then is the beginning of its answer."""
    request = long_request()
    seen = Seen(turn.name, request.name, ENDED)
    job_id = _submit(client, seen, {**request.chat(), "metadata": {"operation": turn.name}})
    time.sleep(dice.uniform(0, 3))
    answer = client.call(seen, "POST", f"/v1/jobs/{job_id}/cancel")
    if answer.status_code != 200:
        seen.complain(f"cancel answered {answer.status_code}: {answer.text[:300]}")
        return seen
    job = answer.json()
    seen.states.append(job["status"])
    if job["status"] not in TERMINAL:
        seen.complain(f"is {job['status']!r} after its cancellation")
    seen.partial_texts.append(job["output"])
    return seen


def deadline(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """A job that cannot be done in its time fails by its deadline, and by nothing else."""
    request = long_request()
    seen = Seen(turn.name, request.name, ENDED)
    body = {**request.chat(), "metadata": {"operation": turn.name}, "deadline": dice.uniform(1, 4)}
    job_id = _submit(client, seen, body)
    job = _until_ended(client, seen, job_id, whole=False)
    if job["status"] == "failed" and job["error"]["code"] != "deadline_exceeded":
        seen.complain(f"failed by {job['error']}")
    seen.partial_texts.append(job["output"])
    return seen


def twice(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """The same key from two threads at once, as an impatient proxy sends it: one job."""
    seen, key, ids = turn.seen(), client.key(), []

    def submit() -> None:
        ids.append(_submit(client, seen, turn.body(), key))

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(set(ids)) != 1:
        seen.complain(f"one idempotency key made the jobs {ids}")
        return seen
    _until_ended(client, seen, ids[0])
    return seen


def webhook(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """The receiver's log is held against the jobs by the audit."""
    seen = turn.seen()
    hook = {"url": turn.hook, "event_types": ["job.completed", "job.incomplete", "job.failed", "job.cancelled"]}
    job_id = _submit(client, seen, turn.body(webhook=hook))
    _until_ended(client, seen, job_id)
    return seen


def batch(client: Client, turn: Turn, dice: random.Random) -> Seen:
    """A file of lines, each answered once, as it is answered by itself."""
    seen, lines = turn.seen(), dice.randrange(3, 9)
    line = {"method": "POST", "url": "/v1/chat/completions", "body": turn.request.chat()}
    content = "\n".join(json.dumps({"custom_id": f"line-{k}", **line}) for k in range(lines))
    form = {"files": {"file": ("batch.jsonl", content.encode())}, "data": {"purpose": "batch"}}
    file_id = _made(seen, client.call(seen, "POST", "/v1/files", key=client.key(), **form))
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch_id = _made(seen, client.call(seen, "POST", "/v1/batches", body, key=client.key()))
    end = time.monotonic() + PATIENCE_S
    while (made := client.call(seen, "GET", f"/v1/batches/{batch_id}").json())["status"] not in BATCH_ENDED:
        if time.monotonic() > end:
            raise GaveUp(f"{batch_id} is {made['status']} after {PATIENCE_S:.0f} s: {made['request_counts']}")
        client.pause(1.0)
    if made["status"] != "completed" or made["request_counts"] != {"total": lines, "completed": lines, "failed": 0}:
        seen.complain(f"{batch_id}: {made}")
        return seen
    output = client.call(seen, "GET", f"/v1/files/{made['output_file_id']}/content").text
    answers = [json.loads(answer) for answer in output.splitlines()]
    if sorted(answer["custom_id"] for answer in answers) != sorted(f"line-{k}" for k in range(lines)):
        seen.complain(f"{batch_id} has answers to {[answer['custom_id'] for answer in answers]}")
    seen.texts += [answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers]
    return seen


def _made(seen: Seen, answer: httpx2.Response) -> str:
    if answer.status_code != 200:
        seen.complain(f"{answer.request.url.path} answered {answer.status_code}: {answer.text[:300]}")
        raise Refused(answer.text)
    return str(answer.json()["id"])


OPERATIONS: dict[str, Operation] = {
    "chat": chat,
    "chat-stream": chat_stream,
    "poll": poll,
    "follow": follow,
    "background": background,
    "cancel": cancel,
    "deadline": deadline,
    "twice": twice,
    "webhook": webhook,
    "batch": batch,
}


def _submit(client: Client, seen: Seen, body: dict[str, Any], key: str = "") -> str:
    answer = client.call(seen, "POST", "/v1/jobs", body, key=key or client.key())
    if answer.status_code != 201:
        seen.complain(f"submit answered {answer.status_code}: {answer.text[:300]}")
        raise Refused(answer.text)
    job_id = str(answer.json()["id"])
    seen.job_ids.add(job_id)
    return job_id


def _until_ended(client: Client, seen: Seen, job_id: str, whole: bool = True) -> dict[str, Any]:
    """Polls until the job is terminal, and once more after that."""
    job: dict[str, Any] = {}
    looks = 0
    while looks < 2:
        answer = client.call(seen, "GET", f"/v1/jobs/{job_id}?wait=2")
        if answer.status_code != 200:
            seen.complain(f"GET of the job answered {answer.status_code}: {answer.text[:300]}")
            raise Refused(answer.text)
        job = dict(answer.json())
        seen.states.append(job["status"])
        looks += job["status"] in TERMINAL
    if whole:
        seen.texts.append(job["output"])
    return job


def _is_end(event: Any) -> bool:
    return bool(event["type"].removeprefix("job.") in TERMINAL)


class Refused(Exception):
    """The API said no to something that is right."""
