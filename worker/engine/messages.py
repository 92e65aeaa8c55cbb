"""Every message between a worker and its engine process: a closed union, msgpack with a length in front.

    worker → engine    Submit, Cancel, Stop
    engine → worker    Loading*, Ready, then Outputs, Refused, Stats at any time; Fatal before it dies of itself

A frame is a big-endian uint32 of the body's length, then the body.
"""

import msgspec

from worker.engine.generation import EngineStats, Generation, TokenOutput


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    generation: Generation


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    generation_id: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Finish nothing, free everything, exit 0."""


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """Progress of the start, `done` from 0 to 1. `silent`: what comes now may keep the process from saying anything
    until it is ready."""

    done: float
    what: str
    silent: bool = False


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The engine serves. `context_length` is the most tokens a sequence may have, prompt and answer together."""

    vocab_size: int
    context_length: int
    slots: int
    device: str


class Outputs(msgspec.Struct, frozen=True, tag="outputs"):
    outputs: list[TokenOutput]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Answers a Submit: the generation never started."""

    generation_id: str
    code: str
    message: str


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """Sent about once a second and after the last output of a busy time."""

    stats: EngineStats


class Fatal(msgspec.Struct, frozen=True, tag="fatal"):
    """The process exits after this; every generation it had is lost."""

    message: str


ToEngine = Submit | Cancel | Stop
FromEngine = Loading | Ready | Outputs | Refused | Stats | Fatal
