"""One request before the limits of its organization: the question, and what follows from the answer. No waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from app import responses
from app.context import Context
from app.core.errors import LimiterUnavailable
from app.core.limits import announce
from app.core.model import Credential, Verdict
from app.ready import ReadyResponse

Then = Callable[[Verdict | None], None]


class Admission:
    """`verdict` is there at once where nobody has to be asked. Otherwise: the `answer` awaited, or `begin` called.

    Making one raises LimiterUnavailable, and so does `result` (RATE_LIMIT_FALLBACK=closed).
    """

    __slots__ = ("_context", "_credential", "_is_over", "_then", "verdict")

    def __init__(self, context: Context, credential: Credential) -> None:
        self._context = context
        self._credential = credential
        self._is_over = False
        self._then: Then | None = None
        self.verdict: Verdict | None = None
        try:
            self.verdict = context.services.limiter.decide_at_once(credential.organization)
        except LimiterUnavailable:
            self._look()
            raise

    def answer(self) -> Awaitable[Verdict | None]:
        """What is to be awaited."""
        answer: Awaitable[Verdict | None] = self._context.services.limiter.wait(self._credential.organization)
        return answer

    def result(self, verdict: Verdict | None) -> ReadyResponse | None:
        """The 429, or None for a request that may go on; it has counted."""
        context = self._context
        if verdict is None:
            self._look()
            raise LimiterUnavailable
        context.verdict = verdict
        context.services.uses.note(self._credential, context.started_at)
        return responses.error(context, announce.refusal(verdict)) if verdict.refused_by else None

    def _look(self) -> None:
        """The limits stand on this answer too."""
        self._context.verdict = self._context.services.limiter.look(self._credential.organization)

    # --- for who is called back: a Waiter of the limiter's ---

    def begin(self, then: Then) -> None:
        """Calls `then` with the verdict, unless cancelled before. It must not raise."""
        self._then = then
        self._context.services.limiter.ask(self._credential.organization, self)

    def cancel(self) -> None:
        """The client is gone: if Redis was not asked yet, it will not be."""
        self._is_over, self._then = True, None

    def done(self) -> bool:
        return self._is_over

    def set_result(self, result: Verdict | None, /) -> None:
        then, self._then, self._is_over = self._then, None, True
        if then is not None:
            then(result)
