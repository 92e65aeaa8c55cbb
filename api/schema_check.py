"""Whether a JSON schema can be kept. Compiling one can take time and memory that grow exponentially with it (patterns
that meet in an `allOf`), and no thread that compiles can be ended: so each schema is compiled once
in a process of its own, whose limits the kernel keeps (`api.schema_process`).
"""

import json
import signal
import subprocess
import sys
import threading
from functools import lru_cache

from jobs.settings import environment_without_ours

AT_ONCE = 2
REMEMBERED = 256
_PATIENCE_S = 30.0
TOO_COSTLY = "it takes too much time or memory to compile; fewer patterns that meet at one value help"
_places = threading.BoundedSemaphore(AT_ONCE)


class CheckFailed(Exception):
    """Nothing is known of the schema: the machine is too busy, or has no room for another process."""


@lru_cache(maxsize=REMEMBERED)
def why_not(schema: str) -> str | None:
    """None: the engine will take it. Thread-safe. Raises CheckFailed."""
    command = [sys.executable, "-m", "api.schema_process"]
    with _places:
        try:
            done = subprocess.run(
                command,
                input=schema.encode(),
                capture_output=True,
                timeout=_PATIENCE_S,
                env=environment_without_ours(),
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise CheckFailed(str(exc)) from exc
    if done.returncode == 0:
        why: str | None = json.loads(done.stdout)
        return why
    # Its clock's signal, or what Rust and Python do when they get no memory. Whoever kills processes sends SIGKILL.
    if done.returncode in (-signal.SIGPROF, -signal.SIGABRT, -signal.SIGSEGV) or b"MemoryError" in done.stderr:
        return TOO_COSTLY
    raise CheckFailed(f"its process ended with {done.returncode}: {done.stderr[-300:]!r}")
