"""The state of one plugin: what it reached in its life, and the faults it has meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from openclaw_kernel.api.services import PluginState, PluginStatus
from openclaw_kernel.host.discovery import Found
from openclaw_kernel.host.lines import one_line


class Standing:
    """One plugin's state. `on_change` is called with the new status whenever state or reason change.

    `place` puts file and line before a reason that begins with a key of the config.
    """

    def __init__(
        self,
        found: Found,
        on_change: Callable[[PluginStatus], None],
        now_ms: Callable[[], int],
        place: Callable[[str], str] = str,
    ) -> None:
        self.found = found
        self._place = place
        self._on_change = on_change
        self._now_ms = now_ms
        self._state = PluginState(found.state)
        self._reason = found.reason
        self._faults: dict[str, str] = {}
        self._shown = (self._state, self._reason)
        self._since_ms = now_ms()

    @property
    def state(self) -> PluginState:
        """The state with its faults counted in."""
        if self._state is PluginState.STARTED and self._faults:
            return PluginState.DEGRADED
        return self._state

    @property
    def reason(self) -> str | None:
        """Why it is not simply at work, in one line."""
        # What a plugin says of itself and what its start raised is often the same.
        return self._reason or "; ".join(dict.fromkeys(self._faults.values())) or None

    @property
    def alive(self) -> bool:
        """Whether its code is loaded and may be called."""
        return self._state in {PluginState.LOADED, PluginState.STARTED}

    def follow(self, on_change: Callable[[PluginStatus], None]) -> None:
        """Tell somebody else of changes from now on."""
        self._on_change = on_change

    def become(self, state: PluginState, reason: str | None = None) -> None:
        """Reach a state of life."""
        self._state, self._reason = state, None if reason is None else self._place(one_line(reason))
        self._tell()

    def derive(self, state: PluginState | None, faults: Mapping[str, str | None]) -> None:
        """Record several faults at once, and with them the state they lead to, None for the one it has."""
        for source, reason in faults.items():
            self._set_fault(source, reason)
        if state is not None:
            self._state, self._reason = state, None
        self._tell()

    def fault(self, source: str, reason: str | None) -> None:
        """Record what is wrong now, by its source; None where it is over."""
        self._set_fault(source, reason)
        self._tell()

    def _set_fault(self, source: str, reason: str | None) -> None:
        if reason is None:
            self._faults.pop(source, None)
        else:
            self._faults[source] = self._place(one_line(str(reason)))

    def status(self) -> PluginStatus:
        """Return the plugin's status."""
        return PluginStatus(
            id=self.found.id,
            kind=self.found.kind,
            version=self.found.version,
            distribution=self.found.distribution,
            state=self.state,
            reason=self.reason,
            since_ms=self._since_ms,
            bundled=self.found.bundled,
        )

    def _tell(self) -> None:
        shown = (self.state, self.reason)
        if shown == self._shown:
            return
        if shown[0] is not self._shown[0]:
            self._since_ms = self._now_ms()
        self._shown = shown
        self._on_change(self.status())
