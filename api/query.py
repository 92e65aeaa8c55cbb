"""Query parameters that need more than a type."""

import re

from fastapi import Request

from api.errors import ApiError

METADATA = re.compile(r"metadata\[(.+)\]", re.DOTALL)
LARGEST = 2**53


def known_only(request: Request, *names: str) -> None:
    """Raises ApiError for a parameter that the route does not know, or that is given twice. The name `metadata[]`
    stands for every `metadata[key]`."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        known = name in names or ("metadata[]" in names and METADATA.fullmatch(name))
        if not known:
            raise ApiError(f"Unknown query parameter: {name[:100]!r}.", param=name[:100], code="unknown_parameter")
        if name in seen:
            raise ApiError(f"Query parameter given twice: {name[:100]!r}.", param=name[:100], code="invalid_value")
        seen.add(name)


def metadata_filter(request: Request) -> dict[str, str]:
    """The pairs of `metadata[key]=value`."""
    pairs = ((METADATA.fullmatch(name), value) for name, value in request.query_params.multi_items())
    return {match[1]: value for match, value in pairs if match is not None}


def resume_point(request: Request, starting_after: int | None) -> int:
    """The sequence number that the client has seen last, −1 for none. `starting_after` wins over `Last-Event-ID`,
    which a browser sends by itself. Raises ApiError."""
    if starting_after is not None:
        return _bounded(starting_after, "starting_after")
    header = request.headers.get("last-event-id", "")
    if not header:
        return -1
    if not (header.isascii() and header.isdigit() and len(header) < 20):
        message = f"Invalid value for 'Last-Event-ID': must be a sequence number, got {header[:40]!r}."
        raise ApiError(message, param="Last-Event-ID", code="invalid_value")
    return _bounded(int(header), "Last-Event-ID")


def _bounded(sequence: int, name: str) -> int:
    if sequence >= LARGEST:
        raise ApiError(f"Invalid value for {name!r}: {sequence} is too large.", param=name, code="invalid_value")
    return sequence
