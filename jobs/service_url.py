"""URLs of the services: what may be shown of one, and what one over TLS has to say. Opens no connection."""

import logging
from urllib.parse import SplitResult, parse_qs, parse_qsl, quote, urlencode, urlsplit, urlunsplit

log = logging.getLogger(__name__)

_TLS_OPTIONS: dict[str, tuple[str, ...]] = {
    "ssl_cert_reqs": ("required", "optional", "none"),
    "ssl_check_hostname": ("true", "false"),
    "ssl_ca_certs": (),
    "ssl_ca_path": (),
    "ssl_certfile": (),
    "ssl_keyfile": (),
    "ssl_password": (),
}
"""With the values that they may have, where not any."""
_EXAMPLES = {
    "redis": "redis://user:password@host",
    "rediss": "rediss://user:password@host",
    "unix": "unix://user:password@/run/valkey.sock",
}
_SECRET_WORDS = ("pass", "secret", "token", "key", "sig", "cred")


def shown(url: str) -> str:
    """Without what may be a password, in the part before the host or in the query. Of what cannot be taken apart only
    the scheme."""
    try:
        parts = urlsplit(url)
        user, at, place = parts.netloc.rpartition("@")
        # A password that is not percent-encoded cuts the URL in the wrong place; `port` raises then, mostly.
        if "@" in parts.path + parts.query + parts.fragment or parts.port == 0:
            raise ValueError(url)
    except ValueError:
        return f"{url.partition(':')[0][:20]}:…" if ":" in url else "…"
    if at:
        user = user.partition(":")[0] + ":…"
    query = "&".join(
        f"{name}=…" if any(word in name.lower() for word in _SECRET_WORDS) else f"{name}={quote(value, safe='/,')}"
        for name, values in parse_qs(parts.query, keep_blank_values=True).items()
        for value in values
    )
    return urlunsplit((parts.scheme, user + at + place, parts.path, query, ""))


def checked_redis_url(url: str) -> str:
    """The spelling that both clients of Redis understand in the same way: of TCP the database is in the path, and a
    rediss:// URL that says nothing of certificates says from here on that they are required, for Celery takes silence
    for the opposite. Empty stays empty. Raises ValueError, without what may be a password."""
    if not url:
        return url
    parts = _redis_parts(url)
    options = _redis_options(parts)
    path = parts.path
    if parts.scheme != "unix":
        database = options.pop("db", "") or path.strip("/")
        path = f"/{database}" if database else ""
    elif parts.netloc.rpartition("@")[2] or not path.strip("/"):
        raise ValueError("names no socket: its path begins with a third /, as in unix:///run/valkey.sock")
    else:
        database = options.get("db", "")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError(f"names the database {database[:40]!r}, which is no number, as in redis://host/1")
    if parts.scheme == "rediss":
        options.setdefault("ssl_cert_reqs", "required")
    # Celery takes what is before and after a ; for two brokers.
    place = f"{parts.netloc}{path}".replace(";", "%3B")
    return f"{parts.scheme}://{place}" + (f"?{urlencode(options)}" if options else "")


def _redis_parts(url: str) -> SplitResult:
    if url.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise ValueError("is no redis://, rediss:// or unix:// URL")
    try:
        parts = urlsplit(url)
        # A password that is not percent-encoded cuts the URL in the wrong place.
        if (parts.port is not None and not parts.hostname) or "@" in parts.path + parts.query + parts.fragment:
            raise ValueError(url)
    except ValueError:
        raise ValueError(
            "is no URL: its port is no number, or an @ is in the wrong place; "
            "in a password / ? # @ : are written as %2F %3F %23 %40 %3A"
        ) from None
    return parts


def _redis_options(parts: SplitResult) -> dict[str, str]:
    """What stands behind the ?, each once. Limits of time are ours and have no place there."""
    options: dict[str, str] = {}
    allowed = ("db", *_TLS_OPTIONS) if parts.scheme == "rediss" else ("db",)
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in ("username", "password"):
            raise ValueError(f"has {name} behind its ?: it is written in front, as in {_EXAMPLES[parts.scheme]}")
        if name not in allowed:
            raise ValueError(f"has {name[:40]} behind its ?: with {parts.scheme}:// may be {', '.join(allowed)}")
        if name in options:
            raise ValueError(f"has {name} twice behind its ?")
        if (words := _TLS_OPTIONS.get(name)) and value not in words:
            raise ValueError(f"has {name}={value[:40]}: may be {', '.join(words)}")
        options[name] = value
    return options


def warn_of_unchecked(redis_url: str) -> None:
    """In the log, when the URL turns the check of certificates, or of the name in them, off."""
    if not redis_url.startswith("rediss://"):
        return
    query = parse_qs(redis_url.partition("?")[2])
    off = {"ssl_cert_reqs": "none", "ssl_check_hostname": "false"}
    for key, word in off.items():
        if query.get(key, [""])[-1].lower() == word:
            log.warning(
                "redis_url (environment VLMQ_REDIS_URL) has %s=%s: whoever stands between reads and writes everything",
                *(key, word),
                extra={"action": "redis_unchecked"},
            )
