"""What is wrong with the files of `gateway.tls`."""

from __future__ import annotations


class TlsFault(Exception):
    """A file cannot be served: the key of the config that names it, what was found there, and the cure."""

    def __init__(self, key: str, found: str, cure: str) -> None:
        super().__init__(f"{key}: {found}; {cure}")
        self.key = key
        self.found = found
        self.cure = cure


def words_of(error: OSError) -> str:
    """What the system says, as part of a sentence."""
    return (error.strerror or str(error)).lower()
