"""The kernel: plugin host, WebSocket protocol, lock, store and config engine."""

__version__ = "0.1.0"
