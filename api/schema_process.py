"""Compiles one JSON schema as the engine will, but for its tokenizer, under limits that the kernel keeps. Run by
`api.schema_check` as `python -m api.schema_process`: the schema comes on standard input, the verdict goes to standard
output, as JSON: null, or why the engine would refuse the schema.
"""

import json
import resource
import signal
import sys

from llguidance import LLMatcher

CPU_S = 1.0
"""Of processor time: 64 KB of an honest schema take 0.05 s."""
ROOM_BYTES = 512 << 20


def why_not(schema: str) -> str | None:
    # Options in the schema itself must not make the compiler leave keywords out.
    try:
        rules = LLMatcher.grammar_from_json_schema(schema, overrides={"lenient": False, "coerce_one_of": False})
    except ValueError as exc:
        return str(exc)
    wrong, messages = LLMatcher.validate_grammar_with_warnings(rules)
    return messages[0] if wrong else None


def main() -> None:
    schema = sys.stdin.buffer.read().decode()
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ROOM_BYTES, ROOM_BYTES))
    sys.stdout.write(json.dumps(why_not(schema)))


if __name__ == "__main__":
    main()
