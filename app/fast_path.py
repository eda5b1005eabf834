"""The fast path: a request that waits for nobody but Redis and one kept connection is served without a task.

The steps are those of every request, from the one list, and so are limiter, balancer and pool; here they call back
instead of being awaited. As soon as anything is out of the ordinary (a key that is looked up, no kept connection, a
failure, an answer in pieces), the rest is done in a task from that very point on (ways.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from loguru import logger

from app import responses, ways
from app.admission import Admission
from app.answer_writer import AnswerWriter, date_line, interim
from app.body import NO_BODY
from app.choice import choose, organization
from app.context import Context
from app.core.errors import BackendFailed, BackendUnavailable, GatewayError
from app.core.model import Verdict
from app.core.relay.balancer import Balancer
from app.core.relay.peer import Peer
from app.core.relay.pool import Pool
from app.core.relay.target import Place
from app.message import Message
from app.outbound import request_head
from app.ready import ReadyResponse
from app.relayed import relayed
from app.server import PUBLIC_TARGETS, REQUEST_STEPS, RESPONSE_STEPS

if TYPE_CHECKING:
    from app.conversation import Conversation


def takes(message: Message) -> bool:
    """Whether the fast path may be open to a request: all of it has arrived, and it is to be proxied."""
    if message.error is not None or message.upgrade is not None or not message.body.is_whole:
        return False
    return message.target.partition(b"?")[0] not in PUBLIC_TARGETS


class FastPath:
    """One request under way: what the door has in an Exchange's place. A `Passing`, as the steps know it.

    Ends by `conversation.answered`, or by `door.go_on` with the way that is left to go.
    """

    __slots__ = (
        "_admission",
        "_attempt",
        "_conversation",
        "_door",
        "_is_over",
        "_pool",
        "_steps_done",
        "_upstream",
        "_writer",
        "context",
        "message",
    )

    has_begun = False
    """An answer is sent in one piece here."""

    def __init__(self, conversation: Conversation, door: Any, services: Any, message: Message) -> None:
        self._conversation = conversation
        self._door: Any = door
        self.message = message
        self.context = Context(message, door.peer_ip, services)
        self._writer = AnswerWriter(message)
        self._upstream: Any = services.upstream
        self._pool: Pool = self._upstream.pool
        self._steps_done = 0
        self._is_over = False
        self._admission: Admission | None = None
        self._attempt: Attempt | None = None

    # --- the client's side ---

    def hang_up(self) -> None:
        """The client has left: what was not sent to a backend yet may still be answered without one."""
        if self._attempt is not None:
            self.cut()

    def cut(self) -> None:
        """Nobody is there any more: ends the request where it is. Its line is logged."""
        if self._admission is not None:
            self._admission.cancel()
        if self._attempt is not None:
            self.context.backend_seconds = time.monotonic() - self._attempt.began
        self._let_go()
        self._writer.keep_alive = False
        self._conclude()

    # --- the steps ---

    def go(self) -> None:
        """The request steps that are left, then the backend."""
        try:
            steps = REQUEST_STEPS
            while self._steps_done < len(steps):
                step = steps[self._steps_done]
                self._steps_done += 1
                answer = step(self)
                if answer is None:
                    continue
                if isinstance(answer, Admission):
                    self._admission = answer
                    answer.begin(self._decided)
                elif isinstance(answer, ReadyResponse):
                    self._answer(answer)
                else:
                    self._hand_over(ways.ask, answer, self._steps_done)
                return
            self._forward()
        except Exception as error:  # noqa: BLE001 - becomes an answer, as everywhere
            self._fail(error)

    def _decided(self, verdict: Verdict | None) -> None:
        """Called by the limiter."""
        admission, self._admission = self._admission, None
        if admission is None:
            return
        try:
            refusal = admission.result(verdict)
            if refusal is not None:
                self._answer(refusal)
                return
        except Exception as error:  # noqa: BLE001 - as above; others of the batch wait for their turn
            self._fail(error)
            return
        self.go()

    def _answer(self, response: ReadyResponse) -> None:
        """With an answer of our own."""
        if not self._door.can_write:
            self._hand_over(ways.answer, response)
            return
        self._stamp(response)
        body: bytes = response.body or b""
        lines = [*response.lines, date_line(int(time.time()))]
        head = self._writer.own_head(
            response.status, lines, len(body), self.context.stamp, is_draining=self._door.is_draining
        )
        self._door.write(head + self._writer.framed(body, is_last=True))
        self._conclude()

    # --- the backend ---

    def _forward(self) -> None:
        context, door = self.context, self._door
        chosen = choose(context)
        if isinstance(chosen, GatewayError):
            self._answer(responses.error(context, chosen))
            return
        if door.is_gone:
            self.cut()
            return
        began = time.monotonic()
        place = chosen.choose_calmly(began)
        if place is None:
            self._hand_over(ways.proxy)
            return
        peer = self._pool.take(place.target.backend)
        if peer is None:
            place.leave()
            self._hand_over(ways.proxy)
            return
        body = self.message.body
        self._attempt = attempt = Attempt(chosen, place, peer, began)
        chosen.budget.note_request()
        attempt.body = b"" if body is NO_BODY else body.encode_rest()
        self._send(peer, request_head(context, organization(context), place.target.backend) + attempt.body, began)

    def _send(self, peer: Peer, data: bytes, began: float) -> None:
        peer.begin(self.message.method == b"HEAD", self._interim)
        peer.head_deadline = began + self._upstream.deadline_seconds
        peer.on_arrival(self._arrived)
        peer.write(data)

    def _interim(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        if self.message.version != "1.0":  # RFC 9110 section 15.2
            self._door.write(interim(status, fields))

    def _arrived(self) -> None:
        """The backend has begun to answer, or has failed."""
        attempt = self._attempt
        if attempt is None:
            return
        peer = attempt.peer
        self.context.backend_seconds = time.monotonic() - attempt.began
        try:
            if not peer.has_head:
                self._retry(attempt, peer.error or BackendUnavailable())
            elif peer.is_complete and not peer.trailers and self._door.can_write:
                self._relay(attempt, peer)
            else:
                self._attempt = None
                self._hand_over(ways.go_on_relaying, peer, attempt.place)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _relay(self, attempt: Attempt, peer: Peer) -> None:
        """The whole answer at once."""
        head = relayed(peer.status, peer.reason, peer.fields, peer.framed_by, peer.known)
        self._stamp(head)
        data = self._writer.relayed_head(head, self.context.stamp, is_draining=self._door.is_draining)
        data += self._writer.framed(peer.take(), is_last=True)
        self._attempt = None
        self._pool.release(peer, reusable=True)
        attempt.place.leave(is_whole=True)
        self._door.write(data)
        self._conclude()

    def _retry(self, attempt: Attempt, error: Exception) -> None:
        """The first attempt came to nothing."""
        self._attempt = None
        self._pool.give_up(attempt.peer, error, is_kept=True)
        if isinstance(error, BackendFailed):
            self._hand_over(ways.try_again, attempt.balancer, attempt.began, attempt.place, error, attempt.body)
        else:
            attempt.place.leave()
            self._fail(error)

    # --- the end ---

    def _stamp(self, response: object) -> None:
        """The response steps."""
        for step in RESPONSE_STEPS:
            step(self, response)

    def _conclude(self) -> None:
        writer = self._writer
        self._is_over = True
        try:
            self.context.log(writer.status, writer.body_bytes)
        except Exception:  # noqa: BLE001 - a bug of ours: its connection ends, and the log says why
            logger.exception("a request without its line")
            writer.keep_alive = False
        self._conversation.answered(writer.keep_alive)

    def _fail(self, error: Exception) -> None:
        """What was raised becomes an answer, unless there was one: a second would be taken for the next request's."""
        self._let_go()
        if not self._is_over:
            self._hand_over(ways.fail, error)
            return
        logger.opt(exception=error).error("connection ended by an error")
        self._door.reset()

    def _hand_over(self, way: Any, *rest: Any) -> None:
        """The rest in a task: `way(request, *rest)` returns or raises what Sanic's handler would."""
        self._door.go_on(self.context, way, rest)

    def _let_go(self) -> None:
        """Of what is held at a backend."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._pool.release(attempt.peer, reusable=False)
            attempt.place.leave()


class Attempt:
    """What is held while a backend has the request. `body`: the request's, as it was sent."""

    __slots__ = ("balancer", "began", "body", "peer", "place")

    def __init__(self, balancer: Balancer, place: Place, peer: Peer, began: float) -> None:
        self.balancer = balancer
        self.place = place
        self.peer = peer
        self.began = began
        self.body = b""
