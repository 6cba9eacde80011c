"""Runs one program and ends with everything it started: `python -I -S keeper.py CONTROL LOCALE EXECUTABLE ARGUMENT...`.

A script of its own, started once for each program by `openclaw_kernel.api.children`; it imports the standard library alone and as little
of it as it can, for it is in the way of every call. It stands between the gateway and the program because it can do two things that the
gateway cannot: outlive a gateway that is killed, for as long as it takes to end the program, and be the parent of what the program cut
loose (Linux: `PR_SET_CHILD_SUBREAPER`), so that neither `setsid` nor a double fork leads out of its sight.

CONTROL is a descriptor of a stream socket. Out: `+` once the program runs, or `-ERRNO` and the end; `.` as its last word, when nothing of
the program is left. In: `t` asks the program's group to end (SIGTERM); the end of the stream, which comes with the gateway's, kills it.
LOCALE is the program's LC_CTYPE, empty for none: Python sets one of its own at its start. The exit status is the program's; a signal
that ended the program ends this as well.
"""

# ruff: noqa: PTH123, PTH208 - pathlib takes as long to import as all the rest
from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_CHILD_SUBREAPER: Final = 36
LAST_WORD: Final = b"."
#: What cannot be killed, such as a program of another user, holds up the end for so long at most.
GIVE_UP_SECONDS: Final = 5.0
_LOOK_MS: Final = 5
#: What a terminal sends to all of a group is not for the one who has to clear up after it.
_NOT_FOR_THE_KEEPER: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
#: Python ignores them, and a program would inherit that.
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_DEEPEST: Final = 50


def set_process(option: int, value: int) -> None:
    """Call `prctl`, on Linux; without effect elsewhere."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Return the children of a process that is alive or a zombie; empty where the system does not tell."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 where it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def kill_below(pid: int, depth: int = _DEEPEST) -> None:
    """Kill every process under this one, so many generations at most.

    Never a stranger that got the id of one that ended meanwhile: each is held by a descriptor first, and killed if it still has the
    parent that it was found under.
    """
    for child in children(pid):
        with contextlib.suppress(OSError):
            held = os.pidfd_open(child)
            try:
                if depth:
                    kill_below(child, depth - 1)
                if parent_of(child) == pid:
                    signal.pidfd_send_signal(held, signal.SIGKILL)
            finally:
                os.close(held)


class Keeper:
    """The program, from its start to the end of the last process that came of it."""

    def __init__(self, control: int) -> None:
        self._control = control
        self._news, wake = os.pipe()
        self._program = 0
        self._status: int | None = None
        self._asked = False
        os.set_blocking(wake, False)
        os.set_blocking(self._news, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in _NOT_FOR_THE_KEEPER:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def start(self, executable: str, arguments: list[str]) -> bool:
        """Start the program in a session of its own; tell the gateway, and return, whether that was possible."""
        told, tell = os.pipe()
        self._program = os.fork()
        if self._program == 0:
            number = _become(executable, arguments, keeper=os.getppid())
            os.write(tell, b"%d" % number)
            os._exit(127)
        os.close(tell)
        # The program's streams are its own: who reads them is not to wait for this process.
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        os.close(nothing)
        problem = os.read(told, 16)
        os.close(told)
        self._tell(b"-" + problem if problem else b"+")
        return not problem

    def serve(self) -> int:
        """Wait for the program's end or for the gateway to want it; return the status of `waitpid`."""
        watched = select.poll()
        watched.register(self._control, select.POLLIN)
        watched.register(self._news, select.POLLIN)
        while self._collect() and self._status is None and not self._asked:
            ready = [descriptor for descriptor, _ in watched.poll()]
            if self._news in ready:
                self._forget_news()
            if self._control in ready and not self._obey():
                break
        self._end_all()
        self._tell(LAST_WORD)
        return self._status if self._status is not None else signal.SIGKILL

    def _obey(self) -> bool:
        try:
            said = os.read(self._control, 64)
        except OSError:
            return False
        if said and self._status is None:
            # It was not collected, so its id and its group's are its own.
            self._signal_group(signal.SIGTERM)
        return bool(said)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._program, number)

    def _collect(self) -> bool:
        """Collect who has ended; return whether anybody is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._program:
                    self._status = status
                    if sys.platform != "linux":
                        # Here the group is all that is known of what it leaves running; its id stays taken while there is any.
                        self._signal_group(signal.SIGKILL)
        except ChildProcessError:
            return False

    def _end_all(self) -> None:
        give_up = time.monotonic() + GIVE_UP_SECONDS
        news = select.poll()
        news.register(self._news, select.POLLIN)
        while self._collect() and time.monotonic() < give_up:
            if self._status is None:
                self._signal_group(signal.SIGKILL)
            kill_below(os.getpid())
            news.poll(_LOOK_MS)
            self._forget_news()

    def _forget_news(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._news, 4096)

    def _tell(self, word: bytes) -> None:
        # A gateway that is gone is told nothing.
        with contextlib.suppress(OSError):
            os.write(self._control, word)


def _become(executable: str, arguments: list[str], *, keeper: int) -> int:
    """Turn this process, just forked, into the program; return the number of the error where that is not possible."""
    try:
        os.setsid()
        set_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(127)
        signal.set_wakeup_fd(-1)
        for number in (*_NOT_FOR_THE_KEEPER, signal.SIGTERM, signal.SIGCHLD, *_IGNORED_BY_PYTHON):
            signal.signal(number, signal.SIG_DFL)
        os.execv(executable, arguments)  # noqa: S606 - the program that it was started for
    except OSError as error:
        return error.errno or 5


def main(arguments: list[str]) -> None:
    """Keep one program; never returns."""
    control, locale, executable, *command = int(arguments[0]), *arguments[1:]
    if locale:
        os.environ["LC_CTYPE"] = locale
    else:
        os.environ.pop("LC_CTYPE", None)
    os.set_inheritable(control, False)  # noqa: FBT003 - the standard library's signature
    set_process(PR_SET_CHILD_SUBREAPER, 1)
    keeper = Keeper(control)
    # The stream ends with the gateway, unless something else inherited the gateway's end of it: then this signal tells.
    set_process(PR_SET_PDEATHSIG, signal.SIGTERM)
    status = keeper.serve() if keeper.start(executable, command) else 127 << 8
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        set_process(PR_SET_DUMPABLE, 0)
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
