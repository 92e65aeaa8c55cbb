"""URLs of the services: what may be shown of one, and what one over TLS has to say. Opens no connection."""

import logging
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

log = logging.getLogger(__name__)

_CHECKS = ("required", "optional", "none")
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
    """What both clients of Redis understand in the same way: a rediss:// URL that says nothing of certificates says
    from here on that they are required, for Celery takes silence for the opposite. Empty stays empty. Raises
    ValueError, without what may be a password."""
    scheme = url.partition("://")[0]
    if url and scheme not in ("redis", "rediss", "unix"):
        raise ValueError("is no redis://, rediss:// or unix:// URL")
    try:
        parts = urlsplit(url)
        if parts.port is not None and not parts.hostname:
            raise ValueError(url)
    except ValueError:
        raise ValueError(
            "is no URL: its port is no number; in a password / ? # @ : are written as %2F %3F %23 %40 %3A"
        ) from None
    if scheme != "rediss":
        return url
    check = parse_qs(parts.query).get("ssl_cert_reqs", [])
    if not check:
        return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"
    if check[-1] not in _CHECKS:
        raise ValueError(f"has ssl_cert_reqs={check[-1][:40]}: may be {', '.join(_CHECKS)}")
    return url


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
