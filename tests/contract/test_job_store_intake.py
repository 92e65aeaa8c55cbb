"""What every JobStore does with jobs as clients see them: recorded, read, listed, labelled, deleted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import JobExists, JobNotFinished, JobNotFound
from jobs.job import BatchLine, JobKind, JobState, Origin, Priority, Webhook
from jobs.ports import JobFilter, JobStore
from jobs.request import ChatRequest, ImagePart, Message, Role, Sampling, TextPart
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.contract

DIGEST = "ab" * 32


def test_insert_records_the_job_as_queued(store: JobStore) -> None:
    request = ChatRequest(
        messages=(
            Message(Role.SYSTEM, (TextPart("Be kind. \x00 ☃ 👩‍🚀"),)),
            Message(Role.USER, (ImagePart(f"blob:{DIGEST}"), ImagePart("https://example.org/a.png", "low"))),
        ),
        sampling=Sampling(seed=2**63, temperature=0.25, logit_bias={7: -1.5}),
        max_tokens=9,
        stop=("\n\n",),
        logprobs=2,
    )
    deadline = datetime.now(UTC) + timedelta(hours=1)
    new = new_job(
        tenant="acme",
        kind=JobKind.CHAT_COMPLETION,
        request=request,
        metadata={"k": "☃"},
        deadline=deadline,
        max_attempts=5,
    )
    job = store.insert(new)
    assert store.get(new.id) == job
    assert (job.id, job.tenant, job.kind, job.model, job.priority) == (
        new.id,
        "acme",
        JobKind.CHAT_COMPLETION,
        "tiny",
        Priority.BACKGROUND,
    )
    assert (job.state, job.attempt, job.losses, job.worker, job.tokens) == (JobState.QUEUED, 0, 0, None, ())
    assert (job.request, job.metadata, job.deadline, job.max_attempts) == (request, {"k": "☃"}, deadline, 5)
    assert (job.usage, job.finish_reason, job.error) == (None, None, None)
    assert job.timeline == replace(job.timeline, claimed_at=None, prepared_at=None, first_token_at=None, done_at=None)


def test_insert_keeps_how_the_job_came_in(store: JobStore) -> None:
    origin = Origin(
        key_id="key_1",
        background=False,
        stored=False,
        door={"instructions": "Be kind. \x00 ☃", "tools": [{"type": "function"}]},
        batch=BatchLine("batch_1", 7),
        webhook=Webhook("https://example.org/hook", ("job.completed",), "whsec_c2VjcmV0"),
    )
    job = store.insert(new_job(origin=origin, cost=321))
    assert (job.origin, job.cost) == (origin, 321)
    assert store.get(job.id) == job


def test_insert_of_a_known_id_raises_and_changes_nothing(store: JobStore) -> None:
    job = store.insert(new_job())
    with pytest.raises(JobExists, match=job.id):
        store.insert(new_job(id=job.id, model="other"))
    assert store.get(job.id) == job


def test_get_of_an_unknown_or_foreign_job_raises(store: JobStore) -> None:
    job = store.insert(new_job(tenant="acme"))
    assert store.get(job.id, "acme") == job
    with pytest.raises(JobNotFound):
        store.get(job.id, "other")
    with pytest.raises(JobNotFound):
        store.get("job_unknown")


def test_get_many_returns_those_that_exist(store: JobStore) -> None:
    first, second = store.insert(new_job()), store.insert(new_job())
    assert store.get_many([first.id, "job_unknown", second.id]) == {first.id: first, second.id: second}
    assert store.get_many([]) == {}


def test_page_walks_a_tenants_jobs_newest_first_and_back(store: JobStore) -> None:
    ids = [store.insert(new_job()).id for _ in range(5)]
    store.insert(new_job(tenant="other"))
    newest = [job.id for job in store.page("default", JobFilter(limit=2))]
    assert newest == [ids[4], ids[3]]
    assert [job.id for job in store.page("default", JobFilter(after=newest[-1], limit=9))] == [ids[2], ids[1], ids[0]]
    oldest = store.page("default", JobFilter(ascending=True, after=ids[0], limit=2))
    assert [job.id for job in oldest] == [ids[1], ids[2]]


def test_page_keeps_what_the_filter_names(store: JobStore) -> None:
    plain = store.insert(new_job())
    marked = store.insert(new_job(metadata={"run": "7", "who": "me"}, model="large"))
    store.insert(new_job(metadata={"run": "8"}))
    store.cancel(plain.id)
    assert [job.id for job in store.page("default", JobFilter(metadata={"run": "7"}))] == [marked.id]
    assert [job.id for job in store.page("default", JobFilter(model="large"))] == [marked.id]
    hidden = store.insert(new_job(kind=JobKind.RESPONSE, origin=Origin(stored=False)))
    assert [job.id for job in store.page("default", JobFilter(kind=JobKind.RESPONSE))] == [hidden.id]
    assert [job.id for job in store.page("default", JobFilter(stored=False))] == [hidden.id]
    assert [job.id for job in store.page("default", JobFilter(state=JobState.CANCELLED))] == [plain.id]


def test_page_after_an_unknown_or_foreign_job_raises(store: JobStore) -> None:
    foreign = store.insert(new_job(tenant="other"))
    for after in (foreign.id, "job_unknown"):
        with pytest.raises(JobNotFound):
            store.page("default", JobFilter(after=after))


def test_delete_of_a_job_that_still_runs_raises(store: JobStore) -> None:
    job = store.insert(new_job())
    with pytest.raises(JobNotFinished, match="queued"):
        store.delete(job.id, "default")
    assert store.get(job.id) == job


def test_delete_removes_a_terminal_job_and_its_references(store: JobStore) -> None:
    image = ChatRequest((Message(Role.USER, (ImagePart(f"blob:{DIGEST}"),)),), Sampling(seed=1))
    job = store.insert(new_job(request=image))
    assert store.orphan_blobs([DIGEST, "cd" * 32]) == {"cd" * 32}
    store.cancel(job.id)
    with pytest.raises(JobNotFound):
        store.delete(job.id, "other")
    store.delete(job.id, "default")
    with pytest.raises(JobNotFound):
        store.get(job.id)
    assert store.attempts(job.id) == []
    assert store.orphan_blobs([DIGEST]) == {DIGEST}


def test_label_puts_metadata_in_place_of_a_jobs_own(store: JobStore) -> None:
    job = store.insert(new_job(metadata={"a": "b", "c": "d"}))
    assert store.label(job.id, job.tenant, {"a": "z"}).metadata == {"a": "z"}
    assert store.get(job.id).metadata == {"a": "z"}
    with pytest.raises(JobNotFound):
        store.label(job.id, "other", {})
    assert store.page(job.tenant, JobFilter(answered=True)) == []
