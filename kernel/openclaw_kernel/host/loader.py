"""Load what entry points name, through stevedore."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

from stevedore import DriverManager, NamedExtensionManager
from stevedore.exception import MultipleMatches, NoMatches

from openclaw_kernel.host.discovery import GROUPS, Found
from openclaw_kernel.host.installed import installed


class LoadFailed(Exception):
    """Nothing could be loaded under this name."""


class _DiscoveredManager(NamedExtensionManager[Any]):
    """Loads the entry points it is given; stevedore's own list comes from a disk cache that is minutes coarse."""

    def __init__(self, group: str, entry_point: EntryPoint, failed: Callable[[BaseException], None]) -> None:
        self._entry_point = entry_point
        super().__init__(
            group,
            names=[entry_point.name],
            on_load_failure_callback=lambda _manager, _entry_point, error: failed(error),
            on_missing_entrypoints_callback=lambda _names: None,
        )

    def list_entry_points(self) -> list[EntryPoint]:
        """Return the one entry point."""
        return [self._entry_point]


class _InstalledDriver(DriverManager[Any]):
    """Reads the entry points of now, see above."""

    def list_entry_points(self) -> list[EntryPoint]:
        """Return the entry points of the group."""
        return [each.entry_point for each in installed({self.namespace}).entries if each.fault is None]


def load_class(found: Found) -> type[Any]:
    """Import the plugin and return the class its entry point names; whatever the import raises goes through."""
    errors: list[BaseException] = []
    manager = _DiscoveredManager(_group_of(found), found.entry_point, errors.append)
    if errors:
        raise errors[0]
    if not manager.extensions:
        raise LoadFailed(f"entry point {found.entry_point.value!r} names nothing; correct it")
    loaded = manager.extensions[0].plugin
    if not isinstance(loaded, type):
        raise LoadFailed(f"entry point {found.entry_point.value!r} names a {type(loaded).__name__}; name the plugin's class")
    return loaded


def load_driver(group: str, name: str) -> Any:
    """Return what the entry point `name` of a driver group (`openclaw.stores`) names; raise `LoadFailed`."""
    try:
        return _InstalledDriver(group, name, on_missing_entrypoints_callback=None).driver
    except NoMatches as error:
        raise LoadFailed(f"no driver {name!r} in {group}; install the distribution that offers it") from error
    except MultipleMatches as error:
        raise LoadFailed(f"several distributions offer {name!r} in {group}; uninstall all but one") from error


def _group_of(found: Found) -> str:
    return next(group for group, kind in GROUPS.items() if kind == found.kind)
