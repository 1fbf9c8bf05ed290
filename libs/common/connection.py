"""A connection of HTTP, before there is a request: a head that does not come is not waited for, one that nobody can
read is refused as every refusal is. The server itself waits for heads without end, and refuses in plain text."""

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from libs.common.errors import DomainError, MalformedRequest, RequestTimeout
from libs.common.problems import problem_response

HEAD_SECONDS = 30.0
"""From the connection, or from the first byte of a later request, to the end of the head (RFC 9110, 15.5.9)."""


class Connection(HttpToolsProtocol):
    """What uvicorn makes for each connection."""

    _head_awaited: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client is there; its request is not."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._head_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins: on a connection that is kept, not the first."""
        super().on_message_begin()
        if self._head_awaited is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """The head is here; what else comes is limited at the edge."""
        self._head_came()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - as uvicorn has it
        """Refuse what is no HTTP request."""
        self._refuse(MalformedRequest())

    def _await_head(self) -> None:
        self._head_awaited = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_came(self) -> None:
        if self._head_awaited is not None:
            self._head_awaited.cancel()
            self._head_awaited = None

    def _give_up(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # an answer to the request before is under way: nothing else may stand in it
        else:
            self._refuse(RequestTimeout())

    def _refuse(self, error: DomainError) -> None:
        self._head_came()
        answer = problem_response(error)
        answer.headers["connection"] = "close"
        lines = [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        self.transport.write(b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()
