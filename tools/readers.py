"""Other people's HTTP/1 readers: what each makes of a stream of bytes, to be compared with what was meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import h11
import httptools

Fields = tuple[tuple[bytes, bytes], ...]
End = Literal["clean", "partial", "refused"]
EVENT_BYTES_MAX: Final = 200_000
"""More than any head that the gateway lets through: the readers here must not have limits of their own."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as somebody read it; names in lower case."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes
    trailers: Fields = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The whole requests in a stream, and what comes after them: nothing, the beginning of one, or what is none."""

    requests: tuple[Request, ...]
    end: End


@dataclass(frozen=True, slots=True)
class Answer:
    """One final answer as somebody read it. `is_whole` False: the stream ended before it did."""

    status: int
    fields: Fields
    body: bytes
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers in a stream. `end`: as in a Reading."""

    answers: tuple[Answer, ...]
    end: End
    interim: int = 0


def _lower(fields: list[tuple[bytes, bytes]]) -> Fields:
    return tuple((name.lower(), value) for name, value in fields)


# --- h11 ---


def requests_by_h11(data: bytes) -> Reading:
    """Empty lines before a request are taken away for it (RFC 9112 section 2.2): it does not do so itself."""
    found: list[Request] = []
    rest = data.lstrip(b"\r\n")
    while rest:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=EVENT_BYTES_MAX)
        connection.receive_data(rest)
        request = _request_by_h11(connection)
        if not isinstance(request, Request):
            return Reading(tuple(found), request)
        found.append(request)
        rest = connection.trailing_data[0].lstrip(b"\r\n")
    return Reading(tuple(found), "clean")


def _request_by_h11(connection: h11.Connection) -> Request | End:
    head, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return Request(head.method, head.target, tuple(head.headers), body, tuple(event.headers))
            else:
                return "partial"
    except h11.RemoteProtocolError:
        return "refused"


def answers_by_h11(data: bytes, method: bytes = b"GET") -> Answers:
    """The answers to requests of this method, in a stream that has ended."""
    found: list[Answer] = []
    interim = 0
    while data:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=EVENT_BYTES_MAX)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        connection.receive_data(b"")
        head, body = None, b""
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.InformationalResponse):
                    interim += 1
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                else:
                    return Answers(tuple(found), "partial", interim)
        except h11.RemoteProtocolError:
            if head is not None:
                found.append(Answer(head.status_code, tuple(head.headers), body, is_whole=False))
            return Answers(tuple(found), "refused" if head is None else "partial", interim)
        if head is not None:
            found.append(Answer(head.status_code, tuple(head.headers), body, is_whole=True))
        data = connection.trailing_data[0]
    return Answers(tuple(found), "clean", interim)


# --- llhttp, Node's ---


@dataclass(slots=True)
class _Collector:
    """What llhttp calls while it reads: messages, each as it grows."""

    found: list[Request] = field(default_factory=list)
    target: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    is_between: bool = True
    has_head: bool = False

    def on_message_begin(self) -> None:
        self.target = self.body = b""
        self.fields, self.trailers = [], []
        self.is_between = self.has_head = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        (self.trailers if self.has_head else self.fields).append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.body += body


class _Requests(_Collector):
    """Requests; the method is the parser's to tell."""

    parser: httptools.HttpRequestParser

    def on_message_complete(self) -> None:
        fields, trailers = _lower(self.fields), _lower(self.trailers)
        self.found.append(Request(self.parser.get_method(), self.target, fields, self.body, trailers))
        self.is_between = True


def requests_by_llhttp(data: bytes) -> Reading:
    """With every leniency off, as httptools and Node have it."""
    collector = _Requests()
    collector.parser = httptools.HttpRequestParser(collector)
    try:
        collector.parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return Reading(tuple(collector.found), "refused")
    return Reading(tuple(collector.found), "clean" if collector.is_between else "partial")


class _Answers(_Collector):
    """Answers, interim ones only counted. llhttp does not know the request: not for HEAD."""

    parser: httptools.HttpResponseParser
    interim = 0

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Answer] = []

    def answer(self, *, is_whole: bool) -> Answer:
        return Answer(self.parser.get_status_code(), _lower(self.fields), self.body, is_whole)

    def on_message_complete(self) -> None:
        self.is_between = True
        if self.parser.get_status_code() < 200:
            self.interim += 1
        else:
            self.answers.append(self.answer(is_whole=True))


def answers_by_llhttp(data: bytes) -> Answers:
    """The answers to GET requests, in a stream that has ended; each with a length or chunked, as the gateway frames."""
    collector = _Answers()
    collector.parser = httptools.HttpResponseParser(collector)
    end: End = "clean"
    try:
        collector.parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        end = "refused"
    if not collector.is_between:
        end = "partial" if collector.has_head else end
        if collector.has_head:
            collector.answers.append(collector.answer(is_whole=False))
    return Answers(tuple(collector.answers), end, collector.interim)
