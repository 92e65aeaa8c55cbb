"""TensorRT or TensorRT-RTX, whichever is installed: both have the one Python API that is used here."""

import importlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Library(StrEnum):
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"


class LibraryError(Exception):
    """No TensorRT, or none for this GPU; the message says what to install."""


# TensorRT-RTX's wheel of bindings can be imported by itself, without the meta package of the shorter name.
_MODULES = {
    Library.TENSORRT: ("tensorrt",),
    Library.TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_WHEELS = {
    Library.TENSORRT: "tensorrt==10.14.* from NVIDIA's own package index, or NVIDIA's TensorRT-LLM image",
    Library.TENSORRT_RTX: "tensorrt-rtx-cu13-bindings and tensorrt-rtx-cu13-libs, which know SM75, SM80, SM86, SM89, "
    "SM120 and SM121 but no Hopper",
}


@dataclass(frozen=True, slots=True)
class TensorRT:
    """`api` is the imported module."""

    library: Library
    version: str
    api: Any

    def capabilities(self) -> tuple[str, ...]:
        """The GPUs, such as `SM89`, that engines can be built for without one; none where it must be present."""
        if not hasattr(self.api, "ComputeCapability"):
            return ()
        return tuple(sorted(name for name in dir(self.api.ComputeCapability) if name.startswith("SM")))

    def check(self, capabilities: tuple[str, ...]) -> None:
        """Raises LibraryError when it cannot build for one of these without having it."""
        known = self.capabilities()
        if capabilities and not known:
            raise LibraryError(
                f"{self.library} builds for the GPU of this machine; a compute capability cannot be named"
            )
        for name in capabilities:
            if name not in known:
                raise LibraryError(
                    f"{self.library} {self.version} has no compute capability {name}; it has {', '.join(known)}"
                )


def find_tensorrt(wanted: Library | None = None) -> TensorRT:
    """`wanted`, or the first that is installed. Raises LibraryError."""
    tried = []
    for library in [wanted] if wanted else list(Library):
        for name in _MODULES[library]:
            try:
                api = importlib.import_module(name)
            except ImportError as exc:
                tried.append(f"{name} ({exc})")
            else:
                return TensorRT(library, api.__version__, api)
    needed = "; or ".join(_WHEELS[library] for library in ([wanted] if wanted else list(Library)))
    raise LibraryError(f"cannot import {', '.join(tried)}; install {needed}")
