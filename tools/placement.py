"""Which processors what is measured runs on, and what is around it: so that neither takes time of the other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

Processors = frozenset[int]


@dataclass(frozen=True, slots=True)
class Placement:
    """`measured`: the gateway's or a peer's; `around`: generator, backend, PostgreSQL, Redis. None: anywhere."""

    measured: Processors | None = None
    around: Processors | None = None

    @classmethod
    def apart(cls) -> Self:
        """One processor for what is measured, the others for the rest, where there are two and they can be chosen."""
        if not hasattr(os, "sched_getaffinity"):
            return cls()
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others)) if others else cls()

    @property
    def anywhere(self) -> Processors | None:
        """All of them: for what is measured with several workers."""
        return self.measured | self.around if self.measured is not None and self.around is not None else None

    @property
    def text(self) -> str:
        """In words, for a table's caption."""
        if self.measured is None or self.around is None:
            return "all processes share all processors"
        return f"measured on processor {_list(self.measured)}, everything around it on {_list(self.around)}"


@contextlib.contextmanager
def placed(processors: Processors | None) -> Iterator[None]:
    """What is started within runs on these processors, from its first instruction on: children inherit the choice."""
    if processors is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _list(processors: Processors) -> str:
    return ", ".join(map(str, sorted(processors)))
