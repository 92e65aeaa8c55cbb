"""How JSON schemas are compiled, by themselves or inside the rules of a grammar (llguidance's Lark)."""

import json
from typing import Any

# Free whitespace would let a model write blanks until it is cut; lenient compilation would leave keywords out unsaid.
OPTIONS: dict[str, Any] = {"whitespace_pattern": r"( |\n {0,16})?", "lenient": False, "coerce_one_of": False}


# As models are trained to write a call, and as it stands in the prompt of the next turn: one line.
_ONE_LINE: dict[str, Any] = {
    **{key: OPTIONS[key] for key in ("lenient", "coerce_one_of")},
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


def inline(schema: dict[str, Any]) -> str:
    """The right side of a rule: a value that the schema describes, in one line. `$ref` means places in the schema."""
    # Options of the schema's own must not make the compiler leave keywords out.
    return "%json " + json.dumps({**schema, "x-guidance": _ONE_LINE})
