"""Signing secrets and `v1` signatures of the Standard Webhooks specification (HMAC-SHA256)."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
NEW_BYTES = 32
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret, as the specification has them."""
HINT_CHARS = 4


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(NEW_BYTES)).decode()


def hint_of(secret: str) -> str:
    """What may be shown of a secret: enough to tell it from another."""
    return f"{PREFIX}…{secret[-HINT_CHARS:]}"


def key_of(secret: str) -> bytes:
    """The HMAC key of a secret. Raises ValueError, which does not repeat the secret."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"a signing secret begins with {PREFIX!r}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as exc:
        raise ValueError(f"what follows {PREFIX!r} is not Base64") from exc
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"a signing secret has {SHORTEST} to {LONGEST} bytes, this one {len(key)}")
    return key


def signed_headers(webhook_id: str, timestamp: int, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """The three headers that a receiver checks. Several secrets sign while one of them replaces the other: one
    signature that fits is enough. `timestamp` is in Unix seconds, of this try."""
    content = f"{webhook_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key_of(key), content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
