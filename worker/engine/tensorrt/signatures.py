"""What an installed package lacks of the API that is written down in `recorded_api`. Calls nothing."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any


def differences(recorded: Mapping[str, str]) -> list[str]:
    """What the installed package lacks of these: a path, a parameter, or a default where one is written down. What it
    has beyond that is no difference, unless it must be given."""
    return [problem for path, parameters in recorded.items() for problem in _compare(path, parameters.split())]


def _compare(path: str, parameters: list[str]) -> list[str]:
    try:
        signature = inspect.signature(resolve(path))
    except (ImportError, AttributeError) as exc:
        return [f"{path} is absent ({exc})"]
    except (TypeError, ValueError) as exc:
        return [f"{path} tells no signature ({exc})"]
    found = {name: each for name, each in signature.parameters.items() if name not in ("self", "cls")}
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in found.values())
    names = {parameter.rstrip("=") for parameter in parameters}
    given = {parameter for parameter in parameters if not parameter.endswith("=")}
    unknown = [] if takes_any else [f"{path} takes no {name}" for name in sorted(names - found.keys())]
    return unknown + [f"{path} wants {name}" for name, each in found.items() if _needed(each) and name not in given]


def _needed(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return parameter.default is inspect.Parameter.empty and not variadic


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
