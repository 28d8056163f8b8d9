"""Word that kernels are being compiled: once for a machine, after which they are in numba's cache."""

from __future__ import annotations

from collections.abc import Callable

from numba.core import event


class _First(event.Listener):
    """Calls what it was given at the first event."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def on_start(self, event: event.Event) -> None:
        """A kernel that is in no cache begins to be compiled."""
        call, self._call = self._call, None
        if call is not None:
            call()

    def on_end(self, event: event.Event) -> None:
        """It is compiled."""


def tell(call: Callable[[], None]) -> None:
    """Have `call` called once, when this process first compiles a kernel; not if all come from the cache."""
    event.register("numba:compile", _First(call))  # type: ignore[no-untyped-call]
