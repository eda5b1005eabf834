"""Requests whose end servers could see in different places, by name: the exact bytes, and the status of the refusal.

Data only; test_hostile_requests.py sends it.
"""

from __future__ import annotations

from tests.app.corpus import LAST, SIZED, Cases, each
from tests.app.corpus_forwarded import CHUNKED, SMUGGLED, request

# fmt: off
FRAMINGS: Cases = {
    "both framings": (request(SIZED + CHUNKED, LAST), 400),
    "both framings, other order": (request(CHUNKED + SIZED, LAST), 400),
    "both framings, length zero": (request(b"Content-Length: 0\r\n" + CHUNKED, LAST + SMUGGLED), 400),
    "both framings, the length ends in the chunks": (
        request(b"Content-Length: 4\r\n" + CHUNKED, b"%x\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED) + LAST),
        400,
    ),
    "both framings, the coding is none": (request(SIZED + b"Transfer-Encoding: identity\r\n", b"hello"), 400),
    "both framings, the coding misspelt": (request(SIZED + b"Transfer-Encoding: xchunked\r\n", b"hello"), 400),
    "both framings, the coding folded": (request(SIZED + b"Transfer-Encoding:\r\n chunked\r\n", LAST), 400),
    "both framings, the coding behind a bare LF": (request(SIZED + b"X: y\nTransfer-Encoding: chunked\r\n", LAST), 400),
    "both framings, the length behind a bare CR": (request(CHUNKED + b"X: y\rContent-Length: 5\r\n", LAST), 400),
    "both framings in HTTP/1.0": (request(SIZED + CHUNKED, LAST, b"POST /x HTTP/1.0"), 400),
    "chunked in HTTP/1.0": (request(CHUNKED, LAST, b"POST /x HTTP/1.0"), 400),
    "chunked in HTTP/1.0, kept alive": (
        request(b"Connection: keep-alive\r\n" + CHUNKED, LAST, b"POST /x HTTP/1.0"),
        400,
    ),
    "two codings": (request(CHUNKED * 2, LAST), 400),
    "two codings, one of them none": (request(b"Transfer-Encoding: identity\r\n" + CHUNKED, LAST), 400),
    "two codings, one of them empty": (request(CHUNKED + b"Transfer-Encoding:\r\n", LAST), 400),
    "two codings, one of them strange": (request(CHUNKED + b"Transfer-Encoding: cow\r\n", LAST), 400),
    "a coding and a field that Connection names": (
        request(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: xchunked\r\n", LAST),
        400,
    ),
    **each(
        "coding",
        [
            b"xchunked", b"chunkedx", b"chunke", b"cunked", b"\x0bchunked", b"chunked\x0b", b"\x0cchunked",
            b"chunked\x00", b"\x00chunked", b"chunked\x7f", b"\xa0chunked", b"\xc2\x85chunked",
            b"chun\xc5\xbfked", b"chunked, identity", b"identity, chunked", b"chunked, chunked", b"chunked,",
            b",chunked", b"chunked;", b"chunked;q=1", b'"chunked"', b"'chunked'", b"chunked chunked",
            b"chun ked", b"gzip", b"gzip, chunked", b"deflate", b"identity", b"", b"\t", b"chunked\t",
            b"chunked\r\n ", b"chunked\n", b"\nchunked", b"chunked\r", b"\rchunked",
        ],
        request(b"Transfer-Encoding: @\r\n", LAST),
    ),
    **each(
        "spelling",
        [
            b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked",
            b"\tTransfer-Encoding: chunked", b"\x0bTransfer-Encoding: chunked", b"\nTransfer-Encoding: chunked",
            b"\rTransfer-Encoding: chunked", b"\0Transfer-Encoding: chunked", b"Transfer-Encoding\x0b: chunked",
            b"Transfer-Encoding\0: chunked", b"Transfer-Encoding\r: chunked", b"Transfer-Encoding\n: chunked",
            b"Transfer-Encoding\r\n : chunked", b"Transfer\rEncoding: chunked", b"Transfer Encoding: chunked",
            b"Transfer-Encoding chunked", b"Transfer-Encoding", b"X: y\r\nTransfer-Encoding : chunked",
            b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
            b"X: y\r\n Transfer-Encoding: chunked", b"X: y\r\r\nTransfer-Encoding: chunked",
            b"Content-Length : 5", b"Content-Length\t: 5", b" Content-Length: 5", b"Content-Length: 5\r\n ",
            b"Content Length: 5", b"Content-Length\0: 5",
        ],
        request(b"@\r\n", LAST),
    ),
}

LENGTHS: Cases = {
    "two lengths": (request(SIZED * 2, b"hello"), 400),
    "two different lengths": (request(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"), 400),
    "two lengths, one zero": (request(b"Content-Length: 0\r\nContent-Length: 5\r\n", b"hello"), 400),
    "two lengths, cases differ": (request(b"content-length: 5\r\nCONTENT-LENGTH: 5\r\n", b"hello"), 400),
    "two lengths in HTTP/1.0": (request(SIZED * 2, b"hello", b"POST /x HTTP/1.0"), 400),
    "a length of many zeros": (request(b"Content-Length: %b5\r\n" % (b"0" * 20), b"hello"), 400),
    "a length of very many zeros": (request(b"Content-Length: %b5\r\n" % (b"0" * 5_000), b"hello"), 400),
    "a length of more than the limit": (request(b"Content-Length: 104857601\r\n"), 413),
    "a length just below 2^64": (request(b"Content-Length: 18446744073709551615\r\n"), 413),
    "a length of 2^63": (request(b"Content-Length: 9223372036854775808\r\n"), 413),
    **each(
        "length",
        [
            b"", b" ", b"+5", b"-5", b"-0", b"--5", b"5_0", b"0x5", b"0o5", b"5h", b"5.0", b"5e0", b"5;", b"5,",
            b"5,5", b"5, 5", b"5, 6", b"5 5", b"5\t5", b'"5"', b"'5'", b"five", b"5\n", b"5\r", b"5\x0b",
            b"5\x0c", b"\x0b5", b"5\0", b"\xa05", b"\xef\xbc\x95", b"\xd9\xa5", b"\xb2",
            b"18446744073709551616", b"18446744073709551621", b"9" * 30,
        ],
        request(b"Content-Length: @\r\n", b"hello"),
    ),
}

CHUNKS: Cases = each(
    "chunks",
    [
        b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"-0\r\n\r\n", b"+0\r\n\r\n",
        b"-1\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n0\r\n\r\n", b"_5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n", b"0X5\r\nhello\r\n0\r\n\r\n", b"5h\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b"\x0b5\r\nhello\r\n0\r\n\r\n",
        b"5\x0b\r\nhello\r\n0\r\n\r\n", b"5\0\r\nhello\r\n0\r\n\r\n", b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
        b"5,5\r\nhello\r\n0\r\n\r\n", b"5.0\r\nhello\r\n0\r\n\r\n", b'"5"\r\nhello\r\n0\r\n\r\n',
        b"\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n", b";a=b\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"F" * 17 + b"\r\nhello\r\n0\r\n\r\n", b"F" * 20 + b"\r\n",
        b"5\n\r\nhello\r\n0\r\n\r\n", b"5\r\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n",
        b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello\n\r0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n", b"3\r\nhello\r\n0\r\n\r\n", b"7\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\n", b"5\r\nhello\r\n0\n\r\n", b"5\r\nhello\r\n0\r\r\n\r\n",
        b"5;\nx\r\nhello\r\n0\r\n\r\n", b"5;a=\nb\r\nhello\r\n0\r\n\r\n", b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a=\0\r\nhello\r\n0\r\n\r\n", b'5;a="\r\n0\r\n\r\n"\r\nhello\r\n0\r\n\r\n',
        b'5;a="\nb"\r\nhello\r\n0\r\n\r\n', b"5 ;a=b\r\nhello\r\n0\r\n\r\n", b"0\r\nX : y\r\n\r\n",
        b"0\r\nX: y\r\n z\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX: a\0b\r\n\r\n", b"0\r\nX: a\rb\r\n\r\n",
        b"0\r\nX: a\nb\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\n: y\r\n\r\n", b"0\r\nX Y: z\r\n\r\n",
        b"0\r\nX: y\n\r\n", b"0\r\nContent-Length: 4\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
    request(CHUNKED, b"@"),
)
