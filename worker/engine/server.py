"""The engine process: `python -m worker.engine.server --socket PATH --model DIR …`. Connects to its worker, loads the
model, then submits, steps and sends until the socket closes or Stop comes. Knows no jobs.

Ends with 0 when told to or when the worker is gone; a fault sends Fatal and ends with 1. SIGINT is left to the worker.
"""

import argparse
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from worker.engine.connection import Connection, ConnectionClosed
from worker.engine.generation import Finish, Generation, TokenOutput
from worker.engine.messages import Cancel, Fatal, Outputs, Ready, Refused, Stats, Stop, Submit, ToEngine
from worker.engine.protocol import Engine, Rejected
from worker.engine.reporter import Reporter

if TYPE_CHECKING:
    from worker.engine.tensorrt.boot import BootOptions

_log = logging.getLogger("vlmq.engine")
_STATS_S = 1.0
_LOOK_S = 0.005
_FINISH_S = 5.0


class ServedEngine(Engine, Protocol):
    """What the process needs of a backend beside the steps."""

    context_length: int

    def prepare(self, generation: Generation) -> "Future[Any] | None":
        """Begins on another thread what would make the generation's submit slow. None: nothing would."""
        ...

    def check_integrity(self) -> None:
        """Raises when the engine's accounts are wrong. Called when idle."""
        ...


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options = _parser().parse_args()
    if options.follow:
        _follow(options)
        return
    if options.socket is None:
        _parser().error("--socket is needed, but for --follow")
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(str(options.socket))
    connection = Connection(connected)
    try:
        _run(options, connection)
    except ConnectionClosed as exc:
        _log.info("the worker is gone: %s", exc, extra={"action": "close"})
    except Exception as exc:
        _report(connection, exc)
        raise


def _run(options: argparse.Namespace, connection: Connection) -> None:
    with Reporter(connection) as progress:
        engine, ready = _BACKENDS[options.backend](options, progress)
    connection.send(ready)
    _log.info("ready on %s with %d slots", ready.device, ready.slots, extra={"action": "ready"})
    try:
        _Server(engine, connection).serve()
    finally:
        _close(engine)


def _close(engine: ServedEngine) -> None:
    """However it ends, threads of the engine's own must not run into the interpreter's end; one that hangs after a
    fault is left behind."""
    closing = threading.Thread(target=engine.close, name="close", daemon=True)
    closing.start()
    closing.join(_FINISH_S)


def _report(connection: Connection, exc: Exception) -> None:
    try:
        connection.send(Fatal(f"{type(exc).__name__}: {exc}"))
        connection.finish(_FINISH_S)
    except ConnectionClosed:
        _log.warning("nobody is left to hear of the fault", extra={"action": "fatal"})


class _Server:
    """One turn of the loop: take what came, run one step, send what it gave."""

    def __init__(self, engine: ServedEngine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._preparing: dict[str, tuple[Generation, Future[Any]]] = {}
        self._stopping = False
        self._stats_due = 0.0
        self._unchecked = False

    def serve(self) -> None:
        while not self._stopping:
            messages = self._connection.receive(self._patience_s())
            for message in messages:
                self._take(message)
            self._submit_prepared()
            if self._engine.has_work():
                self._step()
            elif not messages:
                self._idle()
            if time.monotonic() >= self._stats_due:
                self._send_stats()

    def _take(self, message: ToEngine) -> None:
        match message:
            case Submit(generation):
                preparing = self._engine.prepare(generation)
                if preparing is None:
                    self._submit(generation)
                else:
                    self._preparing[generation.id] = generation, preparing
            case Cancel(generation_id):
                if self._preparing.pop(generation_id, None):
                    self._connection.send(Outputs([TokenOutput(generation_id, finish=Finish.CANCELLED)]))
                self._engine.cancel(generation_id)
            case Stop():
                self._stopping = True

    def _patience_s(self) -> float:
        """How long the loop may wait for messages."""
        if self._engine.has_work():
            return 0.0
        return _LOOK_S if self._preparing else _STATS_S

    def _submit_prepared(self) -> None:
        for generation, preparing in list(self._preparing.values()):
            if preparing.done():
                del self._preparing[generation.id]
                self._submit(generation, preparing)

    def _submit(self, generation: Generation, prepared: "Future[Any] | None" = None) -> None:
        try:
            if prepared is not None:
                prepared.result()
            self._engine.submit(generation)
        except Rejected as exc:
            self._connection.send(Refused(generation.id, exc.code, str(exc)))

    def _step(self) -> None:
        self._unchecked = True
        outputs = self._engine.step()
        if outputs:
            self._connection.send(Outputs(list(outputs)))
        if not self._engine.has_work():
            self._send_stats()

    def _idle(self) -> None:
        if self._unchecked:
            self._engine.check_integrity()
            self._unchecked = False

    def _send_stats(self) -> None:
        self._stats_due = time.monotonic() + _STATS_S
        self._connection.send(Stats(self._engine.stats()))


def _start_torch(options: argparse.Namespace, progress: Reporter) -> tuple[ServedEngine, Ready]:
    # Imported here: the other backends need no torch, and the first message should not wait for it.
    progress(0.0, "torch")
    import torch

    from worker.engine.grammar import Grammars
    from worker.engine.torch.engine import TorchEngine
    from worker.engine.torch.internvl import InternVL
    from worker.engine.torch.options import EngineOptions
    from worker.engine.torch.quantization import Quantization

    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    quantization = Quantization(options.quantization)
    model = InternVL.load(options.model, device, getattr(torch, options.dtype), progress, quantization)
    _log.info("weights take %.0f MiB on %s", model.weight_bytes() / (1 << 20), device, extra={"action": "loaded"})
    engine = TorchEngine(
        model,
        EngineOptions(
            slots=options.slots,
            pages=options.pages,
            page_size=options.page_size,
            prefill_chunk=options.prefill_chunk,
            tiles_per_step=options.tiles_per_step,
            embedding_bytes=options.embedding_mib << 20,
            prefix_reuse=options.prefix_reuse,
        ),
        Grammars.load(options.model, model.vocab_size),
    )
    return engine, Ready(model.vocab_size, engine.context_length, options.slots, str(device))


def _start_tensorrt_llm(options: argparse.Namespace, progress: Reporter) -> tuple[ServedEngine, Ready]:
    progress(0.0, "tensorrt_llm")
    import torch

    from worker.engine.tensorrt.boot import start

    if options.threads:
        torch.set_num_threads(options.threads)
    engine = start(_boot_options(options), progress, progress.before_silence)
    return engine, Ready(engine.vocab_size, engine.context_length, options.slots, engine.device)


def _follow(options: argparse.Namespace) -> None:
    from worker.engine.tensorrt.boot import follow

    follow(_boot_options(options))


def _boot_options(options: argparse.Namespace) -> "BootOptions":
    from worker.engine.tensorrt.boot import BootOptions

    return BootOptions(
        checkpoint=options.model,
        engines=options.engines,
        vision=options.vision,
        device=options.device,
        tiles_per_step=options.tiles_per_step,
        embedding_bytes=options.embedding_mib << 20,
        slots=options.slots,
        cache_share=options.cache_share,
        prefix_reuse=options.prefix_reuse,
        ranks=options.ranks,
    )


_BACKENDS: dict[str, Callable[[argparse.Namespace, Reporter], tuple[ServedEngine, Ready]]] = {
    "torch": _start_torch,
    "tensorrt_llm": _start_tensorrt_llm,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker.engine.server", description="Runs one engine.")
    parser.add_argument("--socket", type=Path, help="unix socket on which the worker listens")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--backend", choices=sorted(_BACKENDS), default="torch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<n>")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--quantization", choices=["none", "int8", "fp8"], default="none", help="8-bit weights")
    parser.add_argument("--slots", type=_at_least(1), default=16, help="sequences that run at once")
    parser.add_argument("--pages", type=_at_least(1), default=2048, help="pages of the KV cache")
    parser.add_argument("--page-size", type=_at_least(1), default=16, help="tokens per page")
    parser.add_argument("--prefill-chunk", type=_at_least(1), default=512, help="prompt tokens per step")
    parser.add_argument("--tiles-per-step", type=_at_least(1), default=16, help="tiles encoded per step")
    parser.add_argument("--embedding-mib", type=_at_least(0), default=256, help="memory for encoded images")
    parser.add_argument("--prefix-reuse", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--engines", type=Path, default=Path(), help="folder of built engines, for tensorrt_llm")
    parser.add_argument("--vision", choices=["tensorrt", "torch"], default="tensorrt", help="beside tensorrt_llm")
    parser.add_argument("--cache-share", type=float, default=0.9, help="of free GPU memory, for tensorrt_llm")
    parser.add_argument("--ranks", type=_at_least(1), default=1, help="GPUs, a process each, for tensorrt_llm")
    parser.add_argument("--follow", action="store_true", help="one of several ranks, not the first: no socket")
    parser.add_argument("--threads", type=_at_least(0), default=0, help="CPU threads; 0: torch's own choice")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


if __name__ == "__main__":
    main()
