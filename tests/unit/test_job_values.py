"""The values of a job's life: states, ends of attempts, events, ids."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import transitions
from jobs.errors import IllegalTransition
from jobs.event_log import decode_entry, entry_after, fence_key, stream_key
from jobs.events import FIRST_DELTA, Delta, Ended, Queued, Started, log_of, tokens_of
from jobs.ids import new_job_id
from jobs.job import AttemptEnd, Job, JobKind, JobState, Priority, Timeline, Token, Usage
from jobs.request import ChatRequest, ImagePart, Message, Role, Sampling, TextPart

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = Job(
    id="job_1",
    tenant="default",
    kind=JobKind.JOB,
    model="tiny",
    priority=Priority.BACKGROUND,
    state=JobState.QUEUED,
    request=ChatRequest((), Sampling(seed=1)),
    metadata={},
    deadline=None,
    max_attempts=3,
    attempt=0,
    losses=0,
    worker=None,
    tokens=(),
    usage=None,
    finish_reason=None,
    error=None,
    timeline=Timeline(queued_at=NOW),
)


def test_terminal_states_lead_nowhere_except_for_dead_letters() -> None:
    ways = {(source, target) for source, targets in transitions.ALLOWED.items() for target in targets}
    assert {way for way in ways if way[0].terminal} == {(JobState.FAILED, JobState.QUEUED)}
    assert transitions.ALLOWED.keys() == set(JobState)


def test_sources_of_a_state_are_those_with_an_arrow_to_it() -> None:
    assert transitions.sources_of(JobState.CANCELLED) == {JobState.QUEUED, JobState.IN_PROGRESS}
    assert transitions.sources_of(JobState.COMPLETED) == {JobState.IN_PROGRESS}


@pytest.mark.parametrize(
    ("source", "target"), [(JobState.COMPLETED, JobState.QUEUED), (JobState.QUEUED, JobState.QUEUED)]
)
def test_a_transition_without_an_arrow_raises_and_names_both_states(source: JobState, target: JobState) -> None:
    with pytest.raises(IllegalTransition, match=f"{source}.*{target}"):
        transitions.check(source, target)


def test_attempts_that_ended_in_order_or_by_drain_are_no_losses() -> None:
    assert {end for end in AttemptEnd if not end.is_loss} == {
        AttemptEnd.FINISHED,
        AttemptEnd.CANCELLED,
        AttemptEnd.DEADLINE,
        AttemptEnd.DRAINED,
    }


def test_log_of_a_job_follows_its_row() -> None:
    tokens = (Token(1, "a"), Token(2, "b"))
    started = replace(JOB, timeline=replace(JOB.timeline, claimed_at=NOW), tokens=tokens)
    assert log_of(JOB) == [Queued()]
    assert log_of(started) == [Queued(), Started(), Delta(tokens[0]), Delta(tokens[1])]
    assert log_of(replace(started, state=JobState.FAILED))[-1] == Ended(JobState.FAILED)
    assert log_of(replace(JOB, state=JobState.CANCELLED)) == [Queued(), Ended(JobState.CANCELLED)]


@given(st.lists(st.builds(Token, st.integers(0, 2**31), st.text())))
def test_the_kth_token_has_the_sequence_first_delta_plus_k(tokens: list[Token]) -> None:
    job = replace(JOB, timeline=replace(JOB.timeline, claimed_at=NOW), tokens=tuple(tokens))
    log = log_of(job)
    assert log[FIRST_DELTA:] == [Delta(token) for token in tokens]
    assert tokens_of(log) == job.tokens
    assert job.text == "".join(token.text for token in tokens)


def test_entries_are_named_for_where_the_log_goes_on() -> None:
    assert (entry_after(-1), entry_after(4)) == ("0-0", "5-0")
    payload = b"\x92\x91\xa6queued\x91\xabin_progress"
    assert decode_entry(b"2-0", {b"e": payload}) == (0, [Queued(), Started()])
    assert decode_entry("7-0", {b"e": payload}) == (5, [Queued(), Started()])


def test_keys_of_a_job_lie_in_one_slot() -> None:
    assert stream_key("vlmq:", "job_1") == "vlmq:{job_1}:events"
    assert fence_key("vlmq:", "job_1") == "vlmq:{job_1}:attempt"


def test_ids_tell_the_door_and_follow_time() -> None:
    ids = [new_job_id(JobKind.JOB) for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(len(job_id) == 36 and job_id.startswith("job_") for job_id in ids)
    assert all(job_id[16] == "7" and job_id[20] in "89ab" for job_id in ids)
    moments = [int(job_id[4:16], 16) for job_id in ids]
    assert moments == sorted(moments)
    assert abs(datetime.fromtimestamp(moments[0] / 1000, UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert new_job_id(JobKind.CHAT_COMPLETION).startswith("chatcmpl-")


def test_a_request_names_the_blobs_it_refers_to() -> None:
    parts = (
        TextPart("blob:text"),
        ImagePart("blob:aa"),
        ImagePart("https://x/y"),
        ImagePart("blob:bb"),
        ImagePart("blob:aa"),
    )
    assert ChatRequest((Message(Role.USER, parts),), Sampling(seed=1)).blobs() == {"aa", "bb"}


def test_usage_totals_prompt_and_completion() -> None:
    assert Usage(prompt_tokens=5, completion_tokens=2, image_tokens=3, cached_tokens=1).total_tokens == 7
