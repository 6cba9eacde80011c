"""Each failure of a call as a `ProviderError` that names the place and the cure, and no secret."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from openclaw_config.secrets import Secret
from openclaw_kernel.api.errors import ProviderError, ProviderErrorKind
from openclaw_kernel.api.provider import Completed
from openclaw_kernel.api.remote.failures import cause_of, one_line, without_password, without_secrets
from openclaw_kernel.api.remote.settings import ServerSettings

#: What is raised where a stream has another form than its reader expects.
_ODD_FORM: Final = (AttributeError, KeyError, TypeError, ValueError)


class ServerFaults:
    """The failures of one instance in `models.providers`.

    `address` completes "check that models.providers.<id>.baseUrl is", `reach` "check models.providers.<id>.baseUrl and".
    """

    def __init__(self, provider: str, settings: ServerSettings, url: str, *, address: str, reach: str = "the network") -> None:
        self.place = without_password(url)
        """The URL as it may be shown."""
        self.token: Secret | None = None
        """What was sent last in place of the key, and must not be shown either."""
        self._provider = provider
        self._settings = settings
        self._password = urlsplit(url).password or ""
        self._address = address
        self._reach = reach

    @contextlib.contextmanager
    def reported(self, model: str, *, silent: type[Exception], unconnected: type[Exception]) -> Iterator[None]:
        """Turn what the HTTP library raises while an answer is read, and what its reader raises, into `ProviderError`.

        `silent` is what the library raises for a timeout, `unconnected` for any other failed transport. What an SDK raises for an
        answer of the server is the caller's, inside.
        """
        try:
            yield
        except silent as error:
            raise self.silent(model) from error
        except unconnected as error:
            raise self.unconnected(error, model) from error
        except _ODD_FORM as error:
            raise self.odd(f"wrote what is not of the API's form ({type(error).__name__})", model) from error

    def whole(self, completed: Completed | None, model: str, *, has_begun: bool) -> Completed:
        """Return the end of an answer; raise `ProviderError` where it had none, or where nothing came at all."""
        if not has_begun:
            raise self.odd("answered without a single piece of an answer", model)
        if completed is None:
            raise self.error(ProviderErrorKind.NETWORK, f"{self.place} ended the answer before it was complete", model)
        return completed

    def silent(self, model: str) -> ProviderError:
        """Say that nothing came within `timeoutSeconds`."""
        seconds = f"{self._settings.timeout_seconds:g} s"
        message = f"{self.place} was silent for {seconds} (models.providers.{self._provider}.timeoutSeconds)"
        return self.error(ProviderErrorKind.TIMEOUT, message, model)

    def unconnected(self, error: BaseException, model: str) -> ProviderError:
        """Say that there is no connection, with its innermost cause."""
        cure = f"check models.providers.{self._provider}.baseUrl and {self._reach}"
        return self.error(ProviderErrorKind.NETWORK, f"no connection to {self.place} ({cause_of(error)}); {cure}", model)

    def odd(self, told: str, model: str) -> ProviderError:
        """Say that something else answers there than the API; `told` completes the place."""
        cure = f"check that models.providers.{self._provider}.baseUrl is {self._address}"
        return self.error(ProviderErrorKind.UNAVAILABLE, f"{self.place} {told}; {cure}", model)

    def error(self, kind: ProviderErrorKind, message: str, model: str | None, retry_after: float | None = None) -> ProviderError:
        """Return the error without any secret of the settings; `retry_after` is in seconds."""
        return ProviderError(kind, self.clean(message), provider=self._provider, model=model, retry_after=retry_after)

    def told(self, text: str) -> str:
        """Return what a server said, fit to be shown: without secrets, then cut: a cut through one would leave most of it."""
        return one_line(self.clean(text))

    def clean(self, message: str) -> str:
        """Return the message without key, token, password and values of headers."""
        keys = [key.unwrap() for key in (self._settings.api_key, self.token) if key is not None]
        return without_secrets(message, [*keys, self._password, *self._settings.sent_headers().values()])
