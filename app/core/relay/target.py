"""One target of a service as this worker sees it, and a request's place there. Pure."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from app.core.errors import BackendFailed
from app.core.model import Backend
from app.core.relay.standing import Standing

if TYPE_CHECKING:
    from app.core.relay.balancer import Balancer


class Target:
    """`label` names it without its address: `api/2` is the second URL of `api`."""

    __slots__ = (
        "backend",
        "connections_max",
        "is_being_tried",
        "is_suspect",
        "is_told_well",
        "label",
        "outstanding",
        "standing",
        "told_at",
        "trouble",
    )

    def __init__(self, backend: Backend, number: int, connections_max: int, standing: Standing) -> None:
        self.backend = backend
        self.label = f"{backend.name}/{number}"
        self.connections_max = connections_max
        self.standing = standing
        self.outstanding = 0
        """Requests whose answer is not over; each has a connection of its own, so it bounds those too."""
        self.is_being_tried = False
        self.is_suspect = False
        """Whether even good news about it matters."""
        self.is_told_well = True
        self.told_at = -inf
        self.trouble = ""
        """What spoke against it last, for the log."""


class Place:
    """One of a target's `connections_max`, from the choice until the answer is over. Must be left; twice is fine."""

    is_trial = False
    is_covered = False
    """A trial whose repeat, should it fail, is paid for out of the budget."""
    _is_left = False

    def __init__(self, balancer: Balancer, target: Target, began: float) -> None:
        self._balancer = balancer
        self.target = target
        self.began = began

    def leave(self, is_whole: bool = False, failure: BackendFailed | None = None) -> None:
        """Gives it back. `is_whole`: the answer came to its end; `failure`: the backend's; neither: nobody's fault."""
        if self._is_left:
            return
        self._is_left = True
        if failure is not None and failure.was_dropped:
            failure = None
        target, balancer = self.target, self._balancer
        target.outstanding -= 1
        if self.is_trial or target.is_suspect or failure is not None:
            balancer.learn(self, is_whole, failure)
        if balancer.queue:
            balancer.hand_on()

    def settle(self) -> None:
        """The trial's answer goes on for long: the target gets requests again before it is over."""
        self._balancer.settled(self)
