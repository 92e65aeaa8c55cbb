"""The `deadline` of a request: seconds from now, or an instant."""

from datetime import UTC, datetime, timedelta

from api.errors import ApiError


def to_instant(deadline: float | str | None, now: datetime, max_deadline_s: float) -> datetime | None:
    """When the job must have ended, in UTC. A number is seconds from `now`, a string is ISO 8601 with an offset.
    Raises ApiError for an instant that has passed, lies too far ahead, or has no offset."""
    if deadline is None:
        return None
    ahead_s = (_parse(deadline) - now).total_seconds() if isinstance(deadline, str) else deadline
    if not 0 < ahead_s <= max_deadline_s:
        raise _refusal(f"must lie in the future, at most {max_deadline_s:g} s ahead", deadline)
    return now + timedelta(seconds=ahead_s)


def _parse(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as exc:
        raise _refusal("must be a number of seconds or an ISO 8601 instant", text) from exc
    if instant.tzinfo is None:
        raise _refusal("needs an offset from UTC, like 2026-01-31T12:00:00Z", text)
    try:
        return instant.astimezone(UTC)
    except OverflowError as exc:
        raise _refusal("lies outside the calendar in UTC", text) from exc


def _refusal(why: str, value: float | str) -> ApiError:
    return ApiError(f"Invalid value for 'deadline': {why}, got {value!r:.60}.", param="deadline", code="invalid_value")
