"""Stand-ins for outside services, each a process of its own: `python -m tests.emulators.NAME --port 0`."""
