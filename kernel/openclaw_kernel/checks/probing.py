"""The running gateway from outside: requests without a credential, to its own address alone, bounded in time, size and number."""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import json
import secrets
import socket
import ssl
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from openclaw_kernel.api.probe import ProbeAnswer

SECONDS: Final = 5.0
MOST_REQUESTS: Final = 200
_BODY: Final = 65_536
_SILENCE: Final = 0.5
_LISTENS: Final = "0A"
TlsVersion = Literal["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"]


class GatewayProbe:
    """Implements `openclaw_kernel.api.Probe`."""

    def __init__(self, pid: int, url: str) -> None:
        self._pid = pid
        self._url = url.rstrip("/")
        parts = urlsplit(self._url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or {"http": 80, "https": 443}[parts.scheme]
        self._base = parts.path
        self._encrypted = parts.scheme == "https"
        self._left = MOST_REQUESTS

    @property
    def url(self) -> str:
        """The gateway's address."""
        return self._url

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> ProbeAnswer:
        """Ask for a path below the gateway's own; raise `OSError`."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=SECONDS)
        connection.sock = self._socket()
        try:
            connection.putrequest(method, f"{self._base}{path}", skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": self._own_host, **(headers or {})}.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read(_BODY)
        except http.client.HTTPException as error:
            raise OSError(f"{self._url}{path}: no HTTP came back ({type(error).__name__})") from error
        finally:
            connection.close()
        return ProbeAnswer(status=answer.status, headers={name.lower(): value for name, value in answer.getheaders()}, body=body)

    def upgrade(self, headers: Mapping[str, str] | None = None) -> int:
        """Ask for a WebSocket and hang up; raise `OSError`."""
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        asked = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
        return self.get("/", {**asked, **(headers or {})}).status

    def frames(self, *frames: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Send frames on a WebSocket of its own, and return what came back; raise `OSError`."""
        wire = WSConnection(ConnectionType.CLIENT)
        found: list[Mapping[str, Any]] = []
        with contextlib.closing(self._socket()) as connection:
            connection.sendall(wire.send(Request(host=self._own_host, target=f"{self._base}/")))
            deadline = time.monotonic() + SECONDS
            try:
                for text in _texts(connection, wire, frames, deadline):
                    frame = json.loads(text)
                    if isinstance(frame, dict):
                        found.append(frame)
            except (RemoteProtocolError, LocalProtocolError, ValueError) as error:
                raise OSError(f"{self._url}: what came back is no WebSocket of the protocol ({type(error).__name__})") from error
        return found

    def tls(self, version: TlsVersion) -> bool:
        """Tell whether exactly this version is spoken; raise `OSError` where nothing answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # Old versions are refused by the client's own library unless it is told otherwise.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            # That they are old is what is asked about.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with self._plain_socket() as connection:
            try:
                context.wrap_socket(connection, server_hostname=self._host).close()
            except (ssl.SSLError, ConnectionResetError):
                return False
        return True

    def listening(self) -> Sequence[tuple[str, int]] | None:
        """The addresses on which the process listens, from what the system says of its open sockets."""
        inodes = _sockets_of(self._pid)
        if inodes is None:
            return None
        return sorted({address for name in ("tcp", "tcp6") for inode, address in _listeners(self._pid, name) if inode in inodes})

    @property
    def _own_host(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def _plain_socket(self) -> socket.socket:
        if self._left <= 0:
            raise OSError(f"{self._url}: {MOST_REQUESTS} requests were made, which is the most")
        self._left -= 1
        return socket.create_connection((self._host, self._port), timeout=SECONDS)

    def _socket(self) -> socket.socket:
        connection = self._plain_socket()
        if not self._encrypted:
            return connection
        # It is asked what a stranger could; who it is is not in question on its own machine.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(connection, server_hostname=self._host)


def _texts(connection: socket.socket, wire: WSConnection, frames: Sequence[Mapping[str, Any]], deadline: float) -> Iterator[str]:
    sent = False
    while time.monotonic() < deadline:
        connection.settimeout(_SILENCE if sent else max(0.1, deadline - time.monotonic()))
        try:
            data = connection.recv(_BODY)
        except TimeoutError:
            return
        if not data:
            return
        wire.receive_data(data)
        for event in wire.events():
            if isinstance(event, AcceptConnection):
                for frame in frames:
                    connection.sendall(wire.send(TextMessage(data=json.dumps(frame))))
                sent = True
            elif isinstance(event, TextMessage):
                yield event.data
            elif isinstance(event, CloseConnection):
                return


def _sockets_of(pid: int) -> frozenset[str] | None:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None
    links = []
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            links.append(str(descriptor.readlink()))
    return frozenset(link[8:-1] for link in links if link.startswith("socket:["))


def _listeners(pid: int, name: str) -> Iterator[tuple[str, tuple[str, int]]]:
    try:
        lines = Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] == _LISTENS:
            address, _, port = fields[1].partition(":")
            yield fields[9], (_address(address), int(port, 16))


def _address(text: str) -> str:
    # Groups of four bytes, each in the machine's order.
    raw = bytes.fromhex(text)
    ordered = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return str(ipaddress.ip_address(ordered))
