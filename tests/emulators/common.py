"""What every emulator process shares: its arguments, the `{"port": N}` line, and running an aiohttp application."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from aiohttp import web


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser that knows `--port` (0 asks the system for a free one) and `--until-stdin-closes`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="stop when standard input reaches its end, so that no emulator outlives its test",
    )
    return parser


async def serve(application: web.Application, *, port: int, until_stdin_closes: bool = False) -> None:
    """Serve on 127.0.0.1 until SIGTERM, SIGINT or, when asked, the end of standard input."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    if until_stdin_closes:
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        until_end = asyncio.ensure_future(reader.read())
        until_end.add_done_callback(lambda _: stopped.set())
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    try:
        await stopped.wait()
    finally:
        await runner.cleanup()


def run(application: web.Application, arguments: argparse.Namespace) -> None:
    """Run `application` as this process, with the arguments of `argument_parser`."""
    asyncio.run(serve(application, port=arguments.port, until_stdin_closes=arguments.until_stdin_closes))
