"""Runs one server and stops it when our standard input ends, which the kernel sees to however our owner ends.

A program of its own, `watcher.py UID GID COMMAND…`, in a session of its own: Ctrl-C and a closed terminal concern the
owner, who first answers what is under way. Ends with the server, by its exit status.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from threading import Thread

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def main(uid: int, gid: int, command: list[str]) -> int:
    for deaf in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(deaf, lambda *_: None)
    root = os.geteuid() == 0
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        umask=0o077,
        user=uid if root else None,
        group=gid if root else None,
        extra_groups=[] if root else None,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs yet
    )
    Thread(target=_stop_at_end_of_input, args=[server], daemon=True).start()
    return server.wait()


def _stop_at_end_of_input(server: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would be fought over when the server ends by itself
        pass
    server.send_signal(signal.SIGINT)  # PostgreSQL's fast stop: sessions end, and all that was committed is on the disk


def _die_with_parent() -> None:
    """On Linux the server also stops if we are killed. The signal follows a thread: ours, the main one, starts it."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
