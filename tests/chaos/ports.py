"""Ports on loopback that belong to one run: no run beside it picks them, no outgoing connection takes them."""

import random
import socket
from pathlib import Path

FIRST = 10000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 200


class Ports:
    """Reserved until `close`, also while nobody listens. The kernel gives them back with the process that holds them,
    however that ends."""

    def __init__(self) -> None:
        # Below those that the kernel gives to outgoing connections: a server that is killed must find its port free.
        last = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32768
        self._candidates = range(FIRST, max(last, FIRST + 1000))
        self._dice = random.SystemRandom()
        self._held: list[socket.socket] = []

    def reserve(self) -> int:
        for _ in range(TRIES):
            port = self._dice.choice(self._candidates)
            # A name in the kernel, of the same network namespace as the port, and of no file that could stay behind.
            mark = socket.socket(socket.AF_UNIX)
            try:
                mark.bind(f"\0vlmq-chaos-port-{port}")
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            except OSError:
                mark.close()
                continue
            self._held.append(mark)
            return port
        raise OSError(f"no free port on loopback in {self._candidates} after {TRIES} tries")

    def close(self) -> None:
        for mark in self._held:
            mark.close()
        self._held.clear()
