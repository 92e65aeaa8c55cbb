"""Sockets that pass bytes on to others: the network between two hosts, to be cut and healed.

Knows no protocol. Bytes of a cut direction wait, as TCP's do, and arrive after the healing.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable
from enum import StrEnum

CHUNK = 65536
TURNS_S = 0.05

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Connects to where a wire leads; raises OSError."""


class Direction(StrEnum):
    OUT = "out"
    """From the client to the service."""
    BACK = "back"


class Network:
    """The loop that all wires of a cluster run on, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self._wires: list[Wire] = []

    def wire(self, listener: socket.socket, dial: Dial) -> "Wire":
        """A new wire whose clients connect to `listener`, which is bound and the wire's from here on."""
        made = Wire(listener, dial)
        asyncio.run_coroutine_threadsafe(made.open(), self._loop).result(5)
        self._wires.append(made)
        return made

    def cut(self, wire: "Wire", direction: Direction) -> None:
        self._loop.call_soon_threadsafe(wire.cut, direction)

    def heal(self, wire: "Wire") -> None:
        self._loop.call_soon_threadsafe(wire.heal)

    def close(self) -> None:
        async def close() -> None:
            for wire in self._wires:
                await wire.close()
            # Ends that were just being closed are so in the next turns.
            await asyncio.sleep(TURNS_S)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class Wire:
    """Runs on the network's loop; nobody else calls its methods."""

    def __init__(self, listener: socket.socket, dial: Dial) -> None:
        self._listener = listener
        self._dial = dial
        self._open = {direction: asyncio.Event() for direction in Direction}
        for event in self._open.values():
            event.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        start = asyncio.start_unix_server if self._listener.family == socket.AF_UNIX else asyncio.start_server
        self._server = await start(self._connected, sock=self._listener)

    def cut(self, direction: Direction) -> None:
        self._open[direction].clear()

    def heal(self) -> None:
        for event in self._open.values():
            event.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in self._ends:
            end.close()
        await asyncio.gather(*(end.wait_closed() for end in self._ends), return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        # A host that cannot be reached answers a connection no more than anything else.
        await self._open[Direction.OUT].wait()
        try:
            far_reader, far_writer = await self._dial()
        except OSError:
            writer.close()
            self._ends.discard(writer)
            return
        self._ends.add(far_writer)
        for source, sink, direction in ((reader, far_writer, Direction.OUT), (far_reader, writer, Direction.BACK)):
            task = asyncio.create_task(self._pass(source, sink, direction))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await self._open[direction].wait()
                sink.write(data)
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.close()
        self._ends.discard(sink)
