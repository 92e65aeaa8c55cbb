"""Calls as compiled ones are: arguments are checked by name and by type, and only text tells the signature.

A value's attributes are its constructor's parameters; others cannot be set.
"""

import inspect
import struct
import types
import typing
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

Int32 = Annotated[int, -(2**31), 2**31 - 1]
Uint64 = Annotated[int, 0, 2**64 - 1]


class Bound:
    """A function with one signature or several, which are tried in order."""

    # inspect finds none in a compiled function; this makes it fail here too.
    __signature__ = "compiled"

    def __init__(self, name: str, *overloads: Callable[..., Any]) -> None:
        self.__name__ = name
        self._overloads = [(function, inspect.signature(function)) for function in overloads]
        self.__doc__ = "\n".join(f"{name}{signature}" for _, signature in self._overloads)
        self.__nb_signature__ = tuple(_told(name, signature) for _, signature in self._overloads)

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        faults = []
        for function, signature in self._overloads:
            try:
                bound = signature.bind(*args, **kwargs)
                _check(bound)
            except TypeError as exc:
                faults.append(f"{self.__name__}{signature}: {exc}")
            else:
                return function(*args, **kwargs)
        raise TypeError(f"{self.__name__}(): incompatible function arguments.\n" + "\n".join(faults))


def _told(name: str, signature: inspect.Signature) -> tuple[str, None, tuple[Any, ...]]:
    """As nanobind tells it: where a default stands, a backslash and its number."""
    defaults: list[Any] = []
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.default is not parameter.empty:
            defaults.append(parameter.default)
            parameter = parameter.replace(default=_Numbered(len(defaults) - 1))
        parameters.append(parameter)
    return f"def {name}{signature.replace(parameters=parameters)}", None, tuple(defaults)


class _Numbered(int):
    def __repr__(self) -> str:
        return f"\\{int(self)}"


def bound(*overloads: Callable[..., Any]) -> Any:
    return Bound(overloads[0].__name__, *overloads)


def value(cls: type) -> type:
    """Binds the constructor, which stores what it is given; then `_check`, where the class has one."""
    declared = cls.__init__
    signature = inspect.signature(declared)
    names = [name for name in signature.parameters if name != "self"]

    def store(self: Any, *args: Any, **kwargs: Any) -> None:
        found = signature.bind(self, *args, **kwargs)
        found.apply_defaults()
        for name in names:
            found.arguments[name] = _narrow(found.arguments[name])
            object.__setattr__(self, name, found.arguments[name])
        declared(*found.args, **found.kwargs)

    store.__signature__ = signature  # type: ignore[attr-defined]
    cls.__init__ = Bound("__init__", store)  # type: ignore[misc]
    writable = {*names, *getattr(cls, "_more", ())}

    def set_attribute(self: Any, name: str, new: Any) -> None:
        if name not in writable:
            raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")
        if name in signature.parameters and not fits(new, signature.parameters[name].annotation):
            raise TypeError(f"{cls.__name__}.{name} takes {signature.parameters[name].annotation}, not {new!r}")
        object.__setattr__(self, name, new)

    cls.__setattr__ = set_attribute  # type: ignore[method-assign, assignment]
    return cls


def _narrow(given: Any) -> Any:
    """Numbers with a fraction are 32 bits wide behind the binding: what is tiny becomes 0."""
    return struct.unpack("f", struct.pack("f", given))[0] if type(given) is float else given


def _check(found: inspect.BoundArguments) -> None:
    for name, given in found.arguments.items():
        wanted = found.signature.parameters[name].annotation
        if name != "self" and not fits(given, wanted):
            shown = repr(given)
            raise TypeError(f"{name} takes {wanted}, not {shown if len(shown) < 80 else type(given)}")


def fits(given: Any, wanted: Any) -> bool:
    """Whether the compiled side would take it: numbers of other packages and near misses are refused."""
    origin, inside = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(fits(given, each) for each in inside)
    if origin is Annotated:
        return type(given) in (int, bool) and inside[1] <= given <= inside[2]
    if origin is list:
        return isinstance(given, list | tuple) and all(fits(each, inside[0]) for each in given)
    if origin is dict:
        return isinstance(given, dict) and all(fits(k, inside[0]) and fits(v, inside[1]) for k, v in given.items())
    return _is_a(given, wanted)


def _is_a(given: Any, wanted: Any) -> bool:
    if wanted in (Any, inspect.Parameter.empty):
        return True
    if wanted in (None, types.NoneType):
        return given is None
    if wanted is float:
        return type(given) in (int, float)
    if wanted is int:
        return type(given) in (int, bool)
    if wanted is Path:
        return isinstance(given, str | PathLike)
    if wanted is Callable:
        return callable(given)
    return isinstance(given, wanted)
