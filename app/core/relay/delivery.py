"""The course of one request: attempts at one target after another, until an answer begins or none may follow.

A second attempt is made elsewhere, and only when it cannot do harm:

- Not a byte was sent (refused, no connection in time, TLS failed): any method, each target once. Where it was a kept
  connection that ended before the request was written, that says nothing of the target: once more, on a new one.
- Not a byte of an answer came, and the method is idempotent (RFC 9110 section 9.2.2), without a body or with one that
  is whole and small: once, out of the budget. Where there is one target only, it gets the second attempt itself if its
  connection had been kept: then the first one may have met the close of an idle connection (RFC 9112 section 9.3.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from loguru import logger

from app.core.errors import BackendBusy, BackendFailed, BackendTimedOut
from app.core.model import Backend
from app.core.relay.answer_reader import Interim
from app.core.relay.balancer import RESTORED, UNTRIED, Balancer
from app.core.relay.target import Place, Target
from app.core.relay.upstream import Answer, Outgoing, Upstream

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
HELD_BYTES_MAX: Final = 65_536
HOLD_SECONDS: Final = 1.0
"""A trial's answer is held back for at most that long: if it breaks off meanwhile, the client need not see it."""
WAITING_MAX: Final = 256
"""Requests of one service in one worker that wait for a place, each for at most BACKEND_CONNECT_TIMEOUT."""

HeadFor = Callable[[Backend], bytes]


class HeldBody:
    """A whole body that can be sent more than once."""

    is_whole = True

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self.is_small = len(encoded) <= HELD_BYTES_MAX

    def encode_rest(self) -> bytes:
        return self._encoded

    async def piece(self) -> bytes:
        """Nothing more: it is whole."""
        return b""


class Delivery:
    """One request on its way. A balancer's Seeker."""

    tried: Sequence[Target] = UNTRIED
    _is_repeat = False
    _was_dropped = False
    _granted: asyncio.Future[Place] | None = None

    def __init__(
        self,
        upstream: Upstream,
        balancer: Balancer,
        head_for: HeadFor,
        began: float,
        method: bytes,
        body: Outgoing | None = None,
        on_interim: Interim | None = None,
        protocol: bytes | None = None,
    ) -> None:
        """`head_for` makes the request's head for the target that was chosen. `began`: now, by the pool's clock.
        `on_interim` is told of 1xx answers. `protocol`: what the request asks to switch to."""
        self._upstream = upstream
        self._balancer = balancer
        self._head_for = head_for
        self._method = method
        self._body = body
        self._on_interim = on_interim
        self._protocol = protocol
        self._now = began
        self._until = began + upstream.deadline_seconds
        self._hold_body()

    async def run(self) -> Answer:
        """The answer, once its head is here.

        Raises BackendUnavailable, BackendTimedOut (also when the deadline over all of this has passed), BackendBusy, or
        what the body raises.
        """
        self._balancer.budget.note_request()
        return await self._attempt()

    async def after(self, place: Place, failure: BackendFailed) -> Answer:
        """The same when the first attempt was somebody else's, at `place`, and has failed."""
        self._note_failure(place, failure)
        return await self._attempt()

    def _hold_body(self) -> None:
        """As soon as all of it is here: whatever the method, it is needed again if this attempt sends nothing."""
        body = self._body
        if body is not None and body.is_whole and not isinstance(body, HeldBody):
            self._body = HeldBody(body.encode_rest())

    async def _attempt(self) -> Answer:
        balancer = self._balancer
        while True:
            place = balancer.choose(self, self._now) or await self._wait_for_place()
            backend = place.target.backend
            self._hold_body()
            try:
                answer = await self._upstream.send(
                    backend,
                    self._head_for(backend),
                    self._body,
                    head_only=self._method == b"HEAD",
                    on_interim=self._on_interim,
                    protocol=self._protocol,
                    until=self._begin_trial(place) if place.is_trial else self._until,
                    fresh=self._is_repeat or self._was_dropped,
                )
                if place.is_trial:
                    await self._judge_trial(place, answer)
                answer.place = place
                return answer
            except BackendFailed as failure:
                self._note_failure(place, failure)
            except BaseException:
                place.leave()
                raise

    @property
    def can_repeat(self) -> bool:
        """Whether the request could be sent once more if this time came to nothing."""
        return self._is_repeatable and self._balancer.budget.has_left

    @property
    def _is_repeatable(self) -> bool:
        """Whether sending it once more does no harm: nobody has yet, it is idempotent, and all of it is here."""
        if self._is_repeat or self._method not in IDEMPOTENT or self._protocol is not None:
            return False
        return self._body is None or (isinstance(self._body, HeldBody) and self._body.is_small)

    # --- trials ---

    def _begin_trial(self, place: Place) -> float:
        """When its head must be here: soon, if another target stands behind it. What a repeat costs is set apart."""
        place.is_covered = self.can_repeat and self._balancer.budget.spend()
        return min(self._until, place.began + place.target.standing.pause_seconds) if place.is_covered else self._until

    async def _judge_trial(self, place: Place, answer: Answer) -> None:
        """Holds the answer back while it may still break off unnoticed."""
        if place.is_covered:
            try:
                await answer.hold(HOLD_SECONDS)
            except BaseException as error:
                if isinstance(error, BackendFailed):
                    error.progress = "answering"
                await answer.close()
                raise
            self._balancer.budget.refund()
        if not answer.is_complete:
            place.settle()

    # --- after a failure ---

    def _note_failure(self, place: Place, failure: BackendFailed) -> None:
        """Raises it again unless another attempt may follow."""
        place.leave(failure=failure)
        if not self._may_follow(place, failure):
            raise failure

    def _may_follow(self, place: Place, failure: BackendFailed) -> bool:
        """Whether another attempt may be made after `failure` at `place`."""
        self._now = self._upstream.clock()
        if self._now >= self._until:
            return False
        has_others = len(self.tried) + 1 < len(self._balancer.targets)
        if failure.progress == "unsent":
            if place.is_covered:
                self._balancer.budget.refund()
            if failure.was_dropped:
                self._was_dropped = True
                return True
        elif not self._may_be_repeated(place, failure, has_others):
            return False
        else:
            self._is_repeat = True
            if not has_others:
                return True
        self.tried = (*self.tried, place.target)
        return has_others

    def _may_be_repeated(self, place: Place, failure: BackendFailed, has_others: bool) -> bool:
        """Whether to send again what may have been understood; spends from the budget."""
        met_a_close = failure.was_kept and not isinstance(failure, BackendTimedOut)
        if not self._is_repeatable or not (has_others or met_a_close):
            return False
        return place.is_covered or (failure.progress == "unanswered" and self._balancer.budget.spend())

    # --- while every target has as much to do as it may ---

    async def _wait_for_place(self) -> Place:
        """In order of arrival. Raises BackendBusy, or BackendTimedOut when the deadline comes first."""
        queue, patience_seconds = self._balancer.queue, self._upstream.connect_seconds
        if len(queue) >= WAITING_MAX:
            raise BackendBusy
        left_seconds = self._until - self._now
        self._granted = granted = asyncio.get_running_loop().create_future()
        queue.append(self)
        place: Place | None = None
        try:
            async with asyncio.timeout(min(patience_seconds, left_seconds)):
                place = await granted
        except TimeoutError:
            raise (BackendBusy if patience_seconds < left_seconds else BackendTimedOut)() from None
        finally:
            if place is None:
                self._withdraw(granted)
        self._now = place.began
        return place

    def _withdraw(self, granted: asyncio.Future[Place]) -> None:
        """A place that was granted in the very turn of the loop in which the wait ended goes to the next."""
        if self in self._balancer.queue:
            self._balancer.queue.remove(self)
        elif not granted.cancelled():
            granted.result().leave()

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for a place any more."""
        return self._granted is None or self._granted.done()

    def grant(self, place: Place) -> None:
        if self._granted is not None:
            self._granted.set_result(place)


def tell(target: Target, what: str) -> None:
    """One line in the log for a target that was set aside or restored."""
    log = logger.bind(service=target.backend.name, target=target.label)
    (log.info if what == RESTORED else log.warning)(f"target {target.label} {what}")
