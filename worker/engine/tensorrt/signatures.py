"""What an installed package lacks of the API that is written down in `recorded_api` and `recorded_executor`. Calls
nothing.

Compiled functions (nanobind) tell their signatures as text alone, one per overload; the others are asked by `inspect`.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PARAMETER = re.compile(r"\**(\w+)")
_SILENT = ("self", "cls")


@dataclass(frozen=True, slots=True)
class Signature:
    """`needed` are the parameters without a default; `takes_any`: names that are not among `names` too."""

    names: frozenset[str]
    needed: tuple[str, ...]
    takes_any: bool = False


def differences(recorded: Mapping[str, str], read: Sequence[str] = ()) -> list[str]:
    """What the installed package lacks of these: a path, a parameter, or a default where one is written down; and of
    `read`, which are looked up alone. What it has beyond that is no difference, unless it must be given."""
    called = [problem for path, parameters in recorded.items() for problem in _compare(path, parameters.split())]
    return called + [problem for path in read for problem in _missing(path)]


def _missing(path: str) -> list[str]:
    try:
        resolve(path)
    except (ImportError, AttributeError) as exc:
        return [f"{path} is absent ({exc})"]
    return []


def _compare(path: str, parameters: list[str]) -> list[str]:
    if missing := _missing(path):
        return missing
    try:
        signatures = list(_signatures(resolve(path)))
    except (TypeError, ValueError) as exc:
        return [f"{path} tells no signature ({exc})"]
    # Of several overloads the nearest is meant.
    return min((_problems(path, parameters, signature) for signature in signatures), key=len)


def _problems(path: str, parameters: list[str], found: Signature) -> list[str]:
    names = {parameter.rstrip("=") for parameter in parameters}
    given = {parameter for parameter in parameters if not parameter.endswith("=")}
    unknown = [] if found.takes_any else [f"{path} takes no {name}" for name in sorted(names - found.names)]
    return unknown + [f"{path} wants {name}" for name in found.needed if name not in given]


def _signatures(called: Any) -> Iterator[Signature]:
    """Raises ValueError or TypeError when there is none."""
    texts = _texts(called.__init__ if inspect.isclass(called) else called)
    if not texts:
        yield _inspected(inspect.signature(called))
    for text in texts:
        yield _parsed(text)


def _texts(function: Any) -> list[str]:
    """The signatures of a compiled function, such as `def f(self, a: int, b: int = \\0) -> None`."""
    return [entry[0] for entry in getattr(function, "__nb_signature__", ())]


def _inspected(signature: inspect.Signature) -> Signature:
    found = {name: each for name, each in signature.parameters.items() if name not in _SILENT}
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return Signature(
        names=frozenset(found),
        needed=tuple(n for n, p in found.items() if p.default is inspect.Parameter.empty and p.kind not in variadic),
        takes_any=any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values()),
    )


def _parsed(text: str) -> Signature:
    names, needed, takes_any = set(), [], False
    for part in _split(text[text.index("(") + 1 :]):
        match = _PARAMETER.match(part)
        if match is None or match[1] in _SILENT:
            continue
        takes_any = takes_any or part.startswith("**")
        names.add(match[1])
        if "=" not in part and not part.startswith("*"):
            needed.append(match[1])
    return Signature(frozenset(names), tuple(needed), takes_any)


def _split(text: str) -> list[str]:
    """At the commas of the outermost bracket, up to where it closes. Quoted text holds no brackets that count."""
    parts, part, depth, quote = [], "", 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{<":
            depth += 1
        elif letter in ")]}>":
            if depth == 0:
                break
            depth -= 1
        if letter == "," and depth == 0 and not quote:
            parts.append(part.strip())
            part = ""
        else:
            part += letter
    return [*parts, part.strip()]


def resolve(path: str) -> Any:
    """The longest importable beginning of the path is a module, the rest attributes."""
    words = path.split(".")
    for cut in range(len(words) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(words[:cut]))
        except ModuleNotFoundError:
            continue
        for word in words[cut:]:
            found = getattr(found, word)
        return found
    raise ImportError(f"no module {words[0]}")
