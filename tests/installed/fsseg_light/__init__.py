"""A plugin that the tests see installed: a backbone that is imported and trained in a fraction of timm's time.

An environment variable kills a process that loads it at a given moment, so that no test has to be quick enough for that.
"""

import os
import signal
import sys

from fsseg import hookimpl

KILL = os.environ.get("LIGHT_KILLS", "")
"""`number:text`: ends the process before so many changes of files that have the text in their path."""

CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}


def _kill(number, text):
    left = int(number)

    def watch(event, arguments):
        nonlocal left
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if (opened or event in CHANGES) and text in str(arguments[0]):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if KILL:
    _kill(*KILL.split(":"))


@hookimpl
def register_backbones(register):
    register("light", "fsseg_light.light:Light")
