"""Which target gets a request."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BackendUnavailable, Progress
from app.core.model import Backend
from app.core.relay.balancer import RESTORED, TELL_SECONDS, Balancer
from app.core.relay.standing import DOUBT_SECONDS
from app.core.relay.target import Place, Target


class Seeker:
    """A request that takes what it gets."""

    def __init__(self, can_repeat: bool = True, tried: Sequence[Target] = ()) -> None:
        self.can_repeat = can_repeat
        self.tried = tried
        self.is_gone = False
        self.granted: Place | None = None

    def grant(self, place: Place) -> None:
        self.granted = place


class Scene:
    """A balancer with a clock of the test's own, and what it told."""

    def __init__(self, count: int, connections_max: int = 1000, seed: int = 0) -> None:
        self.now = 100.0
        self.told: list[tuple[str, str]] = []
        self.balancer = Balancer(
            "api",
            [Backend("api", "http", "h", 3000 + number) for number in range(count)],
            connections_max=connections_max,
            tell=lambda target, what: self.told.append((target.label, what.partition(":")[0])),
            chance=random.Random(seed).random,
            clock=lambda: self.now,
        )

    def choose(self, can_repeat: bool = True, tried: Sequence[Target] = ()) -> Place | None:
        return self.balancer.choose(Seeker(can_repeat, tried), self.now)

    def taken(self, can_repeat: bool = True, tried: Sequence[Target] = ()) -> Place:
        place = self.choose(can_repeat, tried)
        assert place is not None
        return place

    def set_aside(self, *numbers: int) -> None:
        for number in numbers:
            for _ in range(3):
                place = Place(self.balancer, self.balancer.targets[number], self.now)
                place.target.outstanding += 1
                place.leave(failure=BackendUnavailable())


events = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "whole", "fail", "quit", "probe", "wait"]), st.integers(0, 1000)),
    max_size=120,
)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99), events)
def test_the_promises_of_a_choice(count: int, room: int, seed: int, run: list[tuple[str, int]]) -> None:
    """Whatever happens: no target has more requests than places; one that is not well gets a request as its only
    trial, or when none that is well is left; every place is given back."""
    scene = Scene(count, room, seed)
    targets, places = scene.balancer.targets, list[Place]()
    for event, number in run:
        if event == "ask":
            tried = [target for index, target in enumerate(targets) if (number >> index) & 1][: count - 1]
            trials = Counter(place.target for place in places if place.is_trial)
            place = scene.choose(number % 2 == 0, tried)
            left = [target for target in targets if target not in tried]
            if place is None:
                some = [target for target in left if target.standing.is_well] or left
                some = [target for target in some if not target.standing.is_unhealthy] or some
                if number % 2 and any(target.standing.is_well for target in some):
                    some = [target for target in some if not target.standing.is_doubtful(scene.now)] or some
                assert all(target.outstanding == room for target in some)
                continue
            assert place.target in left
            if place.is_trial:
                assert not trials[place.target]
                assert scene.now >= place.target.standing.retry_at
            elif not place.target.standing.is_well:
                assert not any(target.standing.is_well for target in left)
            places.append(place)
        elif event == "wait":
            scene.now += number / 100
        elif event == "probe":
            scene.balancer.probed(targets[number % count], "answered 503" if number % 3 else None)
        elif places:
            place = places.pop(number % len(places))
            place.leave(event == "whole", BackendUnavailable() if event == "fail" else None)
        assert [target.outstanding for target in targets] == [
            sum(place.target is target for place in places) for target in targets
        ]
        assert all(target.outstanding <= room for target in targets)


def test_the_less_busy_of_two() -> None:
    """Among two targets it is always the less busy one; among many the busiest never gets a request."""
    scene = Scene(2)
    for _ in range(50):
        place = scene.taken()
        assert max(target.outstanding for target in scene.balancer.targets) <= -(-sum_of(scene) // 2), place
    scene = Scene(5)
    scene.balancer.targets[3].outstanding = 7
    assert scene.balancer.targets[3] not in {scene.taken().target for _ in range(20)}


def sum_of(scene: Scene) -> int:
    return sum(target.outstanding for target in scene.balancer.targets)


def test_ties_are_decided_by_chance() -> None:
    """Idle targets get about as many requests each: three shares of 3,000 are within a tenth of each other."""
    scene = Scene(3)
    seen: Counter[str] = Counter()
    for _ in range(3_000):
        place = scene.taken()
        seen[place.target.label] += 1
        place.leave(True)
    assert set(seen) == {"api/1", "api/2", "api/3"}
    assert all(900 <= count <= 1_100 for count in seen.values()), seen


def test_one_trial_at_a_time() -> None:
    """When the pause is over, one request tries the target; until it is over the others go elsewhere."""
    scene = Scene(3)
    scene.set_aside(1)
    assert all(scene.taken().target.label != "api/2" for _ in range(50))
    scene.now += 1
    trial = scene.taken()
    assert (trial.target.label, trial.is_trial) == ("api/2", True)
    assert all(scene.taken().target.label != "api/2" for _ in range(50))
    trial.leave(True)
    assert "api/2" in {scene.taken().target.label for _ in range(50)}
    scene.now += TELL_SECONDS
    assert scene.told == [("api/2", "set aside"), ("api/2", RESTORED)]


def test_a_trial_that_is_nobodys_fault_ends_too() -> None:
    """A trial whose client left decides nothing, and the next request is the trial."""
    scene = Scene(2)
    scene.set_aside(0)
    scene.now += 1
    scene.taken().leave()
    assert scene.taken().is_trial


@pytest.mark.parametrize(
    ("progress", "is_kept", "fault"), [("unsent", True, 0), ("unsent", False, 1), ("unanswered", True, 1)]
)
def test_a_dropped_kept_connection_is_nobodys_fault(progress: Progress, is_kept: bool, fault: int) -> None:
    """It ended before its request was sent, as idle ones do; a target that cannot be reached is another matter."""
    scene = Scene(2)
    place = scene.taken()
    failure = BackendUnavailable()
    failure.progress, failure.was_kept = progress, is_kept
    place.leave(failure=failure)
    assert (place.target.standing.failures, place.target.outstanding) == (fault, 0)


def test_a_trial_that_is_overtaken_ends_too() -> None:
    """A trial that ends when another answer has restored its target hinders none of the target's later trials."""
    scene = Scene(2)
    target, other = scene.balancer.targets
    scene.set_aside(0, 1)
    scene.now += TELL_SECONDS
    trial = scene.taken()
    assert (trial.target, trial.is_trial) == (target, True)
    scene.taken(tried=[other]).leave(True)
    trial.leave(True)
    scene.set_aside(0)
    scene.now += 1
    again = scene.taken()
    assert (again.target, again.is_trial) == (target, True)


def test_one_failure_is_enough_to_spare_it_what_cannot_be_repeated() -> None:
    """After a failure a target gets only requests that can be repeated, until it answers or some time has passed."""
    scene = Scene(2)
    scene.taken(tried=scene.balancer.targets[1:]).leave(failure=BackendUnavailable())
    assert {scene.taken(can_repeat=False).target.label for _ in range(20)} == {"api/2"}
    scene.taken(tried=scene.balancer.targets[1:]).leave(True)
    assert "api/1" in {scene.taken(can_repeat=False).target.label for _ in range(30)}
    scene.taken(tried=scene.balancer.targets[1:]).leave(failure=BackendUnavailable())
    scene.now += DOUBT_SECONDS
    assert "api/1" in {scene.taken(can_repeat=False).target.label for _ in range(30)}


def test_a_request_is_no_trial_after_a_failure() -> None:
    """A request that failed elsewhere goes to a target that is well."""
    scene = Scene(3)
    scene.set_aside(0)
    scene.now += 1
    again = scene.taken(tried=[scene.balancer.targets[1]])
    assert (again.target.label, again.is_trial) == ("api/3", False)


def test_all_aside() -> None:
    """When no target is well, requests go to those that probes do not speak against, and the first success counts."""
    scene = Scene(3)
    scene.set_aside(0, 1, 2)
    for _ in range(2):
        scene.balancer.probed(scene.balancer.targets[2], "answered 503")
    assert {scene.taken().target.label for _ in range(50)} == {"api/1", "api/2"}
    place = scene.taken()
    place.leave(True)
    assert {scene.taken().target for _ in range(20)} == {place.target}


def test_an_only_target_gets_everything() -> None:
    """A service's only target is never passed over, and no request is its trial."""
    scene = Scene(1)
    scene.set_aside(0)
    scene.now += 5
    assert not any(scene.taken().is_trial for _ in range(10))


def test_places_are_handed_on_in_order() -> None:
    """Who waits longest gets the next place, before anyone new; who has left meanwhile gets none."""
    scene = Scene(1, connections_max=1)
    first = scene.taken()
    waiting = [Seeker(), Seeker(), Seeker()]
    scene.balancer.queue.extend(waiting)
    waiting[0].is_gone = True
    assert scene.choose() is None
    first.leave(True)
    assert [seeker.granted is not None for seeker in waiting] == [False, True, False]
    assert scene.choose() is None
    assert waiting[1].granted is not None
    waiting[1].granted.leave()
    waiting[1].granted.leave()  # twice is once
    assert waiting[2].granted is not None
    assert scene.balancer.targets[0].outstanding == 1


def test_who_can_use_no_free_place_holds_up_nobody() -> None:
    """Whoever waits for the one target that it has not tried lets others pass, new or behind it, to those it has."""
    scene = Scene(2, connections_max=1)
    back, full = scene.balancer.targets
    only_full, any_target = Seeker(tried=[back]), Seeker()
    place_at_full = scene.taken(tried=[back])
    scene.balancer.queue.append(only_full)
    newcomer = scene.taken()
    assert newcomer.target is back
    scene.balancer.queue.append(any_target)
    newcomer.leave(True)
    assert any_target.granted is not None
    assert any_target.granted.target is back
    assert [*scene.balancer.queue] == [only_full]
    place_at_full.leave(True)
    assert only_full.granted is not None
    assert only_full.granted.target is full


@pytest.mark.parametrize("news", ["a trial that goes on", "a good probe"])
def test_who_waits_gets_a_place_at_a_target_that_is_back(news: str) -> None:
    """A target that is well again takes what waits for another one at once, not when some request ends."""
    scene = Scene(2, connections_max=2)
    back, full = scene.balancer.targets
    if news == "a good probe":
        for _ in range(2):
            scene.balancer.probed(back, "answered 503")
    else:
        scene.set_aside(0)
        scene.now += 1
        trial = scene.taken()
        assert (trial.target, trial.is_trial) == (back, True)
    assert [scene.taken().target for _ in range(2)] == [full, full]
    waiting = Seeker()
    scene.balancer.queue.append(waiting)
    assert scene.choose() is None
    if news == "a good probe":
        scene.balancer.probed(back, None)
    else:
        trial.settle()
    assert waiting.granted is not None
    assert waiting.granted.target is back
    assert not scene.balancer.queue


def test_one_that_comes_and_goes_is_told_of_once_a_second() -> None:
    """A target that fails and answers in turn fills no log; what it came to is told in the end."""
    scene = Scene(1)
    for _ in range(100):
        scene.set_aside(0)
        scene.now += 0.01
        scene.taken().leave(True)
        scene.now += 0.01
    assert 2 <= len(scene.told) <= 4
    scene.now += TELL_SECONDS
    scene.taken().leave(True)
    assert scene.told[-1][1] == RESTORED


def test_what_health_shows() -> None:
    """Each target by its label, state, requests and failures; no address."""
    scene = Scene(2)
    scene.set_aside(1)
    scene.taken()
    assert scene.balancer.describe() == [
        {"target": "api/1", "state": "healthy", "outstanding": 1, "failures": 0},
        {"target": "api/2", "state": "aside", "outstanding": 0, "failures": 3},
    ]
