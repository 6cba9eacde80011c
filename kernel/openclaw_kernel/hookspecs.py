"""Every hook, typed and documented; nothing else.

Hooks are synchronous: they register typed objects, in which the async work lives, or decide something at once. A hook that raises
or takes longer than `plugins.callTimeoutSeconds` is named, logged, and stops nobody else. All hooks: since API version 1.
"""

from __future__ import annotations

from typing import Final

import pluggy

from openclaw_kernel.api.messages import InboundMessage
from openclaw_kernel.api.plugin import Registrar
from openclaw_kernel.api.policy import Admission, Route

hookspec: Final = pluggy.HookspecMarker("openclaw")


@hookspec
def openclaw_register_services(registrar: Registrar) -> None:
    """Offer services to other plugins. When: once, after the constructor, before any other hook.

    :param registrar: takes `provide(ProtocolType, instance)`, `add_migrations` for the plugin's own tables and `add_unit`.
    """


@hookspec
def openclaw_register_channels(registrar: Registrar) -> None:
    """Register chat channels. When: once, at load.

    :param registrar: takes `add_channel`.
    """


@hookspec
def openclaw_register_providers(registrar: Registrar) -> None:
    """Register model providers, one per instance in `models.providers`. When: once, at load.

    :param registrar: takes `add_provider`.
    """


@hookspec
def openclaw_register_tools(registrar: Registrar) -> None:
    """Register tools for models. When: once, at load.

    :param registrar: takes `add_tool`.
    """


@hookspec
def openclaw_register_commands(registrar: Registrar) -> None:
    """Register chat commands. When: once, at load.

    :param registrar: takes `add_command`.
    """


@hookspec
def openclaw_register_methods(registrar: Registrar) -> None:
    """Register RPC methods and events; each names its scope or the gateway does not start. When: once, at load.

    :param registrar: takes `add_methods` and `add_events`.
    """


@hookspec
def openclaw_register_routes(registrar: Registrar) -> None:
    """Register HTTP routes on the one listener. When: once, at load.

    :param registrar: takes `add_route`.
    """


@hookspec
def openclaw_register_authenticators(registrar: Registrar) -> None:
    """Register what proves identities that others issue: single sign-on, signed tokens, badges. When: once, at load.

    :param registrar: takes `add_authenticator`. Who may do what is not the plugin's to say: `gateway.auth.identities`.
    """


@hookspec
def openclaw_register_checks(registrar: Registrar) -> None:
    """Register checks of how the gateway is set up. When: each time checks are about to run, and not at a start of the gateway.

    The process is that of the command that runs them (`openclaw-kernel security audit`): constructor and other `register` hooks were
    called there, nothing is started, and the store is closed.

    :param registrar: takes `add_check`.
    """


@hookspec(firstresult=True)
def openclaw_decide_route(message: InboundMessage) -> Route | None:
    """Decide which agent and session a message belongs to. When: for each accepted message; must be pure and quick.

    :param message: what the channel brought.
    :returns: the route, or None to leave it to the next plugin. Stops at the first that is not None; the bundled `routing` plugin
        comes last and always decides.
    """


@hookspec(firstresult=True)
def openclaw_decide_admission(message: InboundMessage, route: Route) -> Admission | None:
    """Decide whether a routed message may start a turn. When: after routing, before any cost; must be pure and quick.

    :param message: what the channel brought.
    :param route: where it would go.
    :returns: the verdict with its reason, or None to leave it to the next plugin. Stops at the first that is not None; the bundled
        `admission` plugin comes last and refuses whom no rule allows. An exception counts as a refusal.
    """
