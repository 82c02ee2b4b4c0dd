"""The smallest HTTP client that can deliver a webhook: one connection, one POST at a time, a bounded wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import httptools

TIMEOUT_S = 2.0  # for the whole request: who needs longer is told again
MAX_ANSWER_BYTES = 65_536  # of an answer nobody reads; more costs the connection

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Undelivered(Exception):  # noqa: N818 - says what became of the webhook
    """No HTTP answer came. `unreachable`: no connection either, so that nobody can have seen it."""

    def __init__(self, *, unreachable: bool) -> None:
        super().__init__("unreachable" if unreachable else "no answer")
        self.unreachable = unreachable


class WebhookClient:
    """Keeps its connection for the next POST to the same place."""

    def __init__(self) -> None:
        self._place: tuple[str, str] | None = None
        self._streams: Streams | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The answer's status; raises Undelivered."""
        parts = urlsplit(url)
        message = _encode(parts, body, headers)
        connected = False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._place != (parts.scheme, parts.netloc):
                    self.close()
                if self._streams is not None:
                    try:
                        return await self._exchange(self._streams, message)
                    except OSError:
                        self.close()  # the receiver had ended the idle connection: once more, on a new one
                streams = await _connect(parts)
                connected = True
                self._streams, self._place = streams, (parts.scheme, parts.netloc)
                return await self._exchange(streams, message)
        except (OSError, TimeoutError, ValueError, httptools.HttpParserError, httptools.HttpParserUpgrade):
            connected = connected or self._streams is not None
            self.close()
            raise Undelivered(unreachable=not connected) from None
        except BaseException:  # cancelled: the answer still to come must not be taken for the next one's
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, streams: Streams, message: bytes) -> int:
        reader, writer = streams
        writer.write(message)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        received = 0
        while not answer.complete and received <= MAX_ANSWER_BYTES:
            chunk = await reader.read(MAX_ANSWER_BYTES)
            if not chunk:
                if not answer.begun:
                    raise ConnectionResetError
                break
            received += len(chunk)
            parser.feed_data(chunk)
        status = int(parser.get_status_code())
        if not answer.complete or not parser.should_keep_alive():
            self.close()
        return status


class _Answer:
    """What the parser calls back."""

    def __init__(self) -> None:
        self.begun = False
        self.complete = False

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_message_complete(self) -> None:
        self.complete = True


async def _connect(parts: SplitResult) -> Streams:
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return await asyncio.open_connection(parts.hostname, port, ssl=True if secure else None)


def _encode(parts: SplitResult, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Head and body in one write: two would cost a keep-alive receiver 40 ms (delayed ACK)."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    given = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n{given}"
        f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
