"""Measurements of the running gateway, beside a bare aiohttp echo server in the same run: `make bench`."""
