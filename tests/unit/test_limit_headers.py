"""What the headers and messages of a key's limits say."""

from datetime import UTC, datetime

import pytest

from api.errors import ApiError
from api.limits import Allowance, duration, refusal
from jobs.errors import LimitReached
from jobs.keys import ApiKey
from jobs.limits import KeyLimits, Limit, Spent, lines_that_fit

pytestmark = pytest.mark.unit


def key(limits: KeyLimits) -> ApiKey:
    return ApiKey("key_1", "acme", "laptop", "abcd", datetime.now(UTC), limits=limits)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1e-10, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9995, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (9.9999, "10s"),
        (59.2, "1m0s"),
        (60, "1m0s"),
        (119.5, "2m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (5025, "1h23m45s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_headers_tell_what_is_left_of_each_limit_that_there_is() -> None:
    allowance = Allowance(key(KeyLimits(60, 1000)), Spent(3, 250))
    assert allowance.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "57",
        "x-ratelimit-reset-requests": "3s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "750",
        "x-ratelimit-reset-tokens": "15s",
    }
    assert not Allowance(key(KeyLimits(queued_jobs=5)), Spent()).headers()


def test_headers_count_what_the_request_itself_used_and_never_go_below_zero() -> None:
    allowance = Allowance(key(KeyLimits(2, 100)), Spent(1.5, 90))
    allowance.use(50)
    told = allowance.headers()
    assert (told["x-ratelimit-remaining-requests"], told["x-ratelimit-remaining-tokens"]) == ("0", "0")
    assert told["x-ratelimit-reset-tokens"] == "1m24s"


def test_part_of_a_request_is_none() -> None:
    assert Allowance(key(KeyLimits(2)), Spent(0.5)).headers()["x-ratelimit-remaining-requests"] == "1"
    with pytest.raises(ApiError):
        Allowance(key(KeyLimits(2)), Spent(1.5)).check()


@pytest.mark.parametrize(
    ("reached", "code", "named", "retry_after", "should_retry"),
    [
        (
            LimitReached(Limit.REQUESTS, 60, 1, wait_s=0.2),
            "requests_per_minute_exceeded",
            "60 requests per minute",
            "1",
            None,
        ),
        (LimitReached(Limit.TOKENS, 10, 9, wait_s=7200), "tokens_per_minute_exceeded", "need 9", "120", None),
        (LimitReached(Limit.TOKENS, 10, 11), "tokens_per_minute_exceeded", "waiting does not help", None, "false"),
        (LimitReached(Limit.QUEUED, 5, 1, until_job_moves=True), "queued_jobs_exceeded", "5 jobs waiting", "5", None),
        (
            LimitReached(Limit.IN_FLIGHT, 8, 1, until_job_moves=True),
            "jobs_in_flight_exceeded",
            "8 jobs that have not ended",
            "5",
            None,
        ),
    ],
)
def test_a_refusal_names_the_limit_its_value_and_when_to_come_back(
    reached: LimitReached, code: str, named: str, retry_after: str | None, should_retry: str | None
) -> None:
    error = refusal(reached, key(KeyLimits()))
    assert (error.status, error.kind, error.code) == (429, "rate_limit_error", code)
    assert named in error.message and "'laptop' (key_1)" in error.message
    assert error.headers.get("retry-after") == retry_after
    assert error.headers.get("x-should-retry") == should_retry


def test_lines_go_in_their_order_until_one_does_not_fit() -> None:
    limits = KeyLimits(tokens_per_minute=1000)
    assert lines_that_fit(limits, Spent(), [200, 200, 200, 50]) == 2
    assert lines_that_fit(limits, Spent(tokens=400), [200, 50]) == 0
    assert lines_that_fit(limits, Spent(tokens=500), [1]) == 0
