"""The bounded memory of output."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openclaw_plugins.shell_tool.output import HeadAndTail


@given(pieces=st.lists(st.binary(max_size=30).map(lambda piece: bytes(byte % 26 + 97 for byte in piece)), max_size=30))
def test_what_is_kept_is_the_beginning_and_the_end(pieces: list[bytes]) -> None:
    output = HeadAndTail(20)
    for piece in pieces:
        output.add(piece)
    whole = b"".join(pieces).decode()
    if len(whole) <= 20:
        assert output.text() == whole
    else:
        assert output.text() == f"{whole[:10]}\n[{len(whole) - 20} bytes left out]\n{whole[-10:]}"
