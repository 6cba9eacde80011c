"""Plugins that run as programs of their own: the JSON-RPC over their stdio, their supervision, and what stands for them in the host.

The contract is `docs/children.md`. Imported by a gateway that has such a plugin, and by the process of an isolated Python plugin.
"""
