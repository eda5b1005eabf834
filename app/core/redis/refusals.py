"""What can come instead of an answer from Redis. Pure."""

from __future__ import annotations


class RedisUnavailable(Exception):
    """No answer: not connected, connection lost, or too late. With `sent` the commands may have run all the same."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class RedisRefusal(Exception):
    """Redis answered one command with an error. `code` is the answer's first word: NOSCRIPT, OOM, READONLY, ERR..."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text
