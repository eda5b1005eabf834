"""The fast path: a request that waits for nobody but Redis and one kept connection is served without a task.

Steps, limiter, balancer, pool and exchange are the ones of every request; here they call back instead of being awaited.
As soon as anything is out of the ordinary (a key that is looked up, no kept connection, a failure, an answer in pieces,
a client that does not read), the rest is done in a task as proxy.py does it, from that very point on.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from app import proxy
from app.admission import Admission
from app.body import NO_BODY
from app.core.errors import BackendFailed, BackendUnavailable, InternalError
from app.core.relay.balancer import Balancer
from app.core.relay.peer import Peer
from app.core.relay.target import Place
from app.core.relay.upstream import Answer
from app.outbound import request_head

if TYPE_CHECKING:
    from app.exchange import Exchange


class FastPath:
    """One request under way. Ends by `door.answered`, or by `door.go_on` with what is left to do."""

    __slots__ = ("_admission", "_app", "_balancer", "_began", "_exchange", "_peer", "_place", "_request", "_steps_done")

    def __init__(self, exchange: Exchange, app: Any) -> None:
        self._app = app
        self._exchange = exchange
        self._request = exchange.make_request()
        self._steps_done = 0
        self._admission: Admission | None = None
        self._balancer: Balancer | None = None
        self._place: Place | None = None
        self._peer: Peer | None = None
        self._began = 0.0

    @classmethod
    def takes(cls, exchange: Exchange, app: Any) -> bool:
        """Whether the request was begun here: it is to be proxied, and all of it has arrived."""
        message = exchange.message
        if message.error is not None or message.upgrade is not None or not message.body.is_whole:
            return False
        if not exchange.can_write or not app.is_proxied(message.target):
            return False
        path = cls(exchange, app)
        exchange.fast_path = path
        path._request.route = app.router.proxy_route
        path._go_on()
        return True

    # --- the client's side ---

    def hang_up(self) -> None:
        """The client has left: what was not sent to a backend yet may still be answered without one."""
        if self._peer is not None:
            self.cancel()

    def cancel(self) -> None:
        """Nobody is there any more: ends the request where it is. Its line is logged."""
        exchange, door = self._exchange, self._exchange.connection
        exchange.fast_path = None
        if self._admission is not None:
            self._admission.cancel()
        self._let_go()
        exchange.abandon()
        exchange.conclude()
        door.answered(keep_alive=False)

    # --- the steps ---

    def _go_on(self) -> None:
        """The request steps that are left, then the backend."""
        try:
            steps = self._request.route.extra.request_middleware
            while self._steps_done < len(steps):
                step = steps[self._steps_done].func
                self._steps_done += 1
                answer = step(self._request)
                if answer is None:
                    continue
                if isinstance(answer, Admission):
                    self._admission = answer
                    answer.begin(self._admitted)
                elif hasattr(answer, "__await__"):
                    self._hand_over(self._app.go_on(self._request, self._steps_done, answer))
                else:
                    self._answer(answer)
                return
            self._forward()
        except Exception as error:  # noqa: BLE001 - becomes an answer, as everywhere
            self._fail(error)

    def _admitted(self) -> None:
        admission, self._admission = self._admission, None
        if admission is None:
            return
        try:
            refusal = admission.result()
            if refusal is not None:
                self._answer(refusal)
                return
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
        else:
            self._go_on()

    def _answer(self, response: Any) -> None:
        """With an answer of our own."""
        if not self._exchange.can_write:
            self._hand_over(_given(response))
            return
        self._respond(response)
        self._exchange.write_now(b"", end_stream=True)
        self._conclude()

    # --- the backend ---

    def _forward(self) -> None:
        request, exchange = self._request, self._exchange
        chosen = proxy.choose(request)
        if not isinstance(chosen, Balancer):
            self._answer(chosen)
            return
        if exchange.connection.is_gone:
            self.cancel()
            return
        upstream, self._balancer, self._began = self._app.ctx.upstream, chosen, time.monotonic()
        self._place = place = chosen.choose_calmly(self._began)
        self._peer = peer = upstream.kept(place.target.backend) if place is not None else None
        if place is None or peer is None:
            self._let_go()
            self._hand_over(proxy.proxy(request))
            return
        chosen.budget.note_request()
        message, backend = request.message, place.target.backend
        head = request_head(request, proxy.organization(request), backend)
        data = head if message.body is NO_BODY else head + message.body.encode_rest()
        peer.begin(message.method == b"HEAD", exchange.send_interim)
        peer.head_deadline = self._began + upstream.deadline_seconds
        peer.on_arrival(self._arrived)
        peer.write(data)

    def _arrived(self) -> None:
        """The backend has begun to answer, or has failed."""
        peer = self._peer
        if peer is None:
            return
        self._request.context.backend_seconds = time.monotonic() - self._began
        try:
            if not peer.has_head:
                self._retry(peer.error or BackendUnavailable())
            elif peer.is_complete and not peer.trailers and self._exchange.can_write:
                self._relay(peer)
            else:
                answer = self._take_answer(peer)
                self._hand_over(proxy.relay(self._request, answer))
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _take_answer(self, peer: Peer) -> Answer:
        answer = Answer(peer, self._app.ctx.upstream, None)
        answer.place, self._peer, self._place = self._place, None, None
        return answer

    def _relay(self, peer: Peer) -> None:
        """The whole answer at once."""
        self._respond(proxy.relayed(peer))
        self._exchange.write_now(peer.take(), end_stream=True)
        self._app.ctx.upstream.release(peer, reusable=True)
        if self._place is not None:
            self._place.leave(is_whole=True)
        self._conclude()

    def _retry(self, error: Exception) -> None:
        """The first attempt came to nothing."""
        request, place, peer, balancer = self._request, self._place, self._peer, self._balancer
        if place is None or peer is None or balancer is None:
            raise InternalError("no attempt has failed")
        self._app.ctx.upstream.give_up(peer, error)
        self._peer = self._place = None
        if isinstance(error, BackendFailed):
            self._hand_over(proxy.proxy_again(request, balancer, self._began, place, error))
        else:
            place.leave()
            self._fail(error)

    # --- the end ---

    def _respond(self, response: Any) -> None:
        """Through the response steps."""
        request = self._request
        request.begin_response(response)
        for step in request.route.extra.response_middleware:
            step.func(request, response)

    def _conclude(self) -> None:
        self._exchange.connection.answered(keep_alive=self._exchange.conclude())

    def _fail(self, error: Exception) -> None:
        self._let_go()
        self._hand_over(_raised(error))

    def _hand_over(self, way: Awaitable[Any]) -> None:
        """The rest in a task. `way` gives or raises what the handler would."""
        self._exchange.fast_path = None
        self._exchange.connection.go_on(self._exchange, self._app.finish(self._request, way))

    def _let_go(self) -> None:
        """Of what is held at a backend."""
        peer, place, self._peer, self._place = self._peer, self._place, None, None
        if peer is not None:
            self._app.ctx.upstream.release(peer, reusable=False)
        if place is not None:
            place.leave()


async def _given(response: Any) -> Any:
    return response


async def _raised(error: Exception) -> None:
    raise error
