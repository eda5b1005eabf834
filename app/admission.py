"""One request before the limits of its organization: the question, and what follows from the answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from app import responses
from app.core.errors import LimiterUnavailable
from app.core.limits import announce
from app.core.model import Credential, Verdict
from app.ready import ReadyResponse
from app.request import GatewayRequest


class Admission:
    """`verdict` is there at once where nobody has to be asked. Otherwise to be awaited, or begun with a callback.

    Raises LimiterUnavailable when it is made, awaited or asked for its result (RATE_LIMIT_FALLBACK=closed).
    """

    __slots__ = ("_credential", "_is_over", "_request", "_services", "_then", "verdict")

    def __init__(self, request: GatewayRequest, credential: Credential) -> None:
        self._request = request
        self._credential = credential
        self._services = request.app.ctx
        self._is_over = False
        self._then: Callable[[], None] | None = None
        self.verdict: Verdict | None = None
        try:
            self.verdict = self._services.limiter.decide_at_once(credential.organization)
        except LimiterUnavailable:
            self._look()
            raise

    def begin(self, then: Callable[[], None]) -> None:
        """Calls `then` when there is a `result`, unless cancelled before. It must not raise."""
        self._then = then
        self._services.limiter.ask(self._credential.organization, self)

    def cancel(self) -> None:
        """The client is gone: if Redis was not asked yet, it will not be."""
        self._is_over, self._then = True, None

    def __await__(self) -> Generator[Any, None, ReadyResponse | None]:
        self.verdict = yield from self._services.limiter.wait(self._credential.organization).__await__()
        return self.result()

    # --- a Waiter of the limiter's ---

    def done(self) -> bool:
        return self._is_over

    def set_result(self, result: Verdict | None, /) -> None:
        self.verdict = result
        self._is_over = True
        if self._then is not None:
            self._then()

    # --- what follows ---

    def result(self) -> ReadyResponse | None:
        """The 429, or None for a request that may go on; it has counted."""
        verdict, context = self.verdict, self._request.context
        if verdict is None:
            self._look()
            raise LimiterUnavailable
        context.verdict = verdict
        self._services.uses.note(self._credential, context.started_at)
        return responses.error(self._request, announce.refusal(verdict)) if verdict.refused_by else None

    def _look(self) -> None:
        """The limits stand on this answer too."""
        self._request.context.verdict = self._services.limiter.look(self._credential.organization)
