"""Whether a request without a key was meant by somebody of this machine. A web page of anywhere can send requests to a
loopback address: under a name of its own that it lets point there (`Host`), or as a plain form (`Origin`)."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from api.errors import ApiError


def check_from_here(headers: Mapping[str, str]) -> None:
    """Raises ApiError (403) for a host name, or a page's origin, that is not of this machine."""
    host = headers.get("host", "")
    if not _is_here(f"//{host}"):
        raise _refusal("host", host, "not_this_machine")
    origin = headers.get("origin")
    if origin is not None and not _is_here(origin):
        raise _refusal("origin", origin, "foreign_origin")


def _is_here(place: str) -> bool:
    try:
        name = (urlsplit(place).hostname or "").rstrip(".")
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refusal(header: str, value: str, code: str) -> ApiError:
    message = (
        f"Without any API key only this machine may ask, got {header} {value[:100]!r}. "
        "Ask 127.0.0.1 or localhost, or make a key: vlmq keys create."
    )
    return ApiError(message, status=403, param=header, code=code)
