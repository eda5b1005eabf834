"""The targets of one service, and which of them gets a request: the less busy of two random ones. Pure."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from app.core.errors import BackendFailed
from app.core.model import Backend
from app.core.relay.retry_budget import RetryBudget
from app.core.relay.standing import Standing
from app.core.relay.target import Place, Target

Tell = Callable[[Target, str], None]
TELL_SECONDS: Final = 1.0
RESTORED: Final = "restored"
UNTRIED: Final[tuple[Target, ...]] = ()


class Seeker(Protocol):
    """A request that wants a place."""

    tried: Sequence[Target]

    @property
    def can_repeat(self) -> bool:
        """Whether it may be sent again elsewhere, if this time comes to nothing."""

    @property
    def is_gone(self) -> bool:
        """Whether it stands in the queue for nothing."""

    def grant(self, place: Place) -> None:
        """Ends its wait in the queue."""


class Balancer:
    """`name` is the service's. `tell(target, why)` is called when a target is set aside or restored."""

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        *,
        connections_max: int,
        tell: Tell,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`connections_max`: requests at once at each target. `chance`: from 0 up to but without 1."""
        self.name = name
        self.budget = RetryBudget()
        self.queue: deque[Seeker] = deque()
        self.targets: Final = tuple(
            Target(backend, number, connections_max, Standing(chance)) for number, backend in enumerate(backends, 1)
        )
        self._only = self.targets[0] if len(self.targets) == 1 else None
        self._tell = tell
        self._chance = chance
        self._clock = clock
        self._is_calm = True

    # --- the choice ---

    def choose(self, seeker: Seeker, now: float) -> Place | None:
        """A place for a request at a target that it has not tried yet; None when it has to stand in the queue.

        A target that is not well is chosen for a trial, one at a time, and when no other is left: trying one that
        failed before beats failing without a try.
        """
        place = None if seeker.tried else self.choose_calmly(now)
        return place or self._choose_with_care(seeker, now)

    def choose_calmly(self, now: float) -> Place | None:
        """A place for a request that has tried none yet, while all is well; None when `choose` has to look closer."""
        if not self._is_calm or self.queue:
            return None
        target = self._only or self._lighter(self.targets)
        if target.outstanding >= target.connections_max:
            return None
        target.outstanding += 1
        return Place(self, target, now)

    def _choose_with_care(self, seeker: Seeker, now: float) -> Place | None:
        """The same while something is wrong or full."""
        target = due = self._due(seeker, now)
        if target is None:
            best = self._best(seeker, now)
            target = self._lighter(best)
            if target.outstanding >= target.connections_max:
                free = [each for each in best if each.outstanding < each.connections_max]
                if not free:
                    return None
                target = self._lighter(free)
        target.outstanding += 1
        place = Place(self, target, now)
        if due is not None:
            place.is_trial = due.is_being_tried = True
        return place

    def _lighter(self, among: Sequence[Target]) -> Target:
        """The less busy of two random ones; between equals chance has decided by their order."""
        count = len(among)
        if count == 1:
            return among[0]
        first = int(self._chance() * count)
        one, other = among[first], among[(first + 1 + int(self._chance() * (count - 1))) % count]
        return one if one.outstanding <= other.outstanding else other

    def _due(self, seeker: Seeker, now: float) -> Target | None:
        """The target that this request is to try. An only one gets every request anyway."""
        if self._only is not None or seeker.tried:
            return None
        free = [each for each in self.targets if not each.is_being_tried and each.outstanding < each.connections_max]
        return next((each for each in free if each.standing.may_be_tried(now, can_repeat=seeker.can_repeat)), None)

    def _best(self, seeker: Seeker, now: float) -> Sequence[Target]:
        """Of those that were not tried the best: well; else at least not found unhealthy by a probe; else all.

        Of those that are well, a request that cannot be repeated gets one whose last attempt did not fail.
        """
        left = [target for target in self.targets if target not in seeker.tried]
        well = [target for target in left if target.standing.is_well]
        if not well:
            return [target for target in left if not target.standing.is_unhealthy] or left
        if seeker.can_repeat:
            return well
        return [target for target in well if not target.standing.is_doubtful(now)] or well

    def hand_on(self) -> None:
        """Gives places that are free to those that wait, in order. Who can use none of them holds up nobody."""
        now = self._clock()
        for waiter in [*self.queue]:
            if all(target.outstanding >= target.connections_max for target in self.targets):
                return
            place = None if waiter.is_gone else self._choose_with_care(waiter, now)
            if place is not None:
                self.queue.remove(waiter)
                waiter.grant(place)

    # --- what became of it ---

    def learn(self, place: Place, is_whole: bool, failure: BackendFailed | None) -> None:
        """Told by a place that is left: of every failure, and of everything at a suspect target."""
        target, standing = place.target, place.target.standing
        if place.is_trial:
            target.is_being_tried = False
        if failure is not None:
            standing.failed(place.began, self._clock())
            target.trouble = f"{standing.failures} failures in a row, the last {_why(failure)}"
        elif is_whole:
            standing.answered(place.began)
        self._judge(target)

    def settled(self, place: Place) -> None:
        """The answer to a trial has begun, and will take its time."""
        place.is_trial = place.target.is_being_tried = False
        place.target.standing.began_to_answer()
        self._judge(place.target)
        self.hand_on()

    def probed(self, target: Target, problem: str | None) -> None:
        """What an active probe found: None is good."""
        target.standing.probed(problem is None)
        if problem is not None:
            target.trouble = f"its health path {problem}"
        self._judge(target)
        self.hand_on()

    def _judge(self, target: Target) -> None:
        """Notes what changed, and tells it: of one that comes and goes once a second, the latest state then."""
        standing, now = target.standing, self._clock()
        self._is_calm = all(each.standing.is_well and not each.standing.failures for each in self.targets)
        if target.is_told_well is not standing.is_well and now >= target.told_at + TELL_SECONDS:
            target.is_told_well, target.told_at = standing.is_well, now
            self._tell(target, RESTORED if standing.is_well else f"set aside: {target.trouble}")
        target.is_suspect = standing.failures > 0 or target.is_told_well is not standing.is_well

    def describe(self) -> list[dict[str, Any]]:
        """Each target for `/health`: nothing that would tell its address."""
        now = self._clock()
        return [
            {
                "target": target.label,
                "state": target.standing.state(now),
                "outstanding": target.outstanding,
                "failures": target.standing.failures,
            }
            for target in self.targets
        ]


def _why(failure: BackendFailed) -> str:
    return repr(failure.__cause__) if failure.__cause__ else failure.message
