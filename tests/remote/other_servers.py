"""Servers that are none of ours, or break: each says what it is told to, byte by byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SSE = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


class OtherServer:
    """Answers its connections with texts in turn, the last one again and again.

    Args:
        answers: The texts. After each the connection is closed; after None it stays open, silent.

    Attributes:
        url: Where it listens.
        asked: What it was sent.
    """

    def __init__(self, *answers: str | None, port: int = 0) -> None:
        self._answers, self.asked = list(answers), list[str]()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self.run)
        self._thread.start()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                self.asked.append(self.heard(connection))
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                if answer is not None:
                    connection.sendall(answer.encode())
                    connection.close()

    def heard(self, connection: socket.socket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += connection.recv(65536)
        return (head + b"\r\n\r\n" + body).decode()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._open:
            connection.close()
        self._thread.join()


@contextmanager
def other_server(*answers: str | None) -> Iterator[OtherServer]:
    server = OtherServer(*answers)
    try:
        yield server
    finally:
        server.close()


def answer(status: str, body: str, *headers: str, kind: str = "application/json") -> str:
    """A whole response."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *headers]
    return "\r\n".join([*head, f"Content-Length: {len(body.encode())}", "", body])
