"""A question on the terminal itself, whose answer is not shown there.

Whatever ends or stops the process meanwhile, the terminal shows again what is typed: a handler
for every signal that can be caught sees to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import Any, Final

_TERMINAL: Final = "/dev/tty"
_LOCAL_FLAGS: Final = 3  # where they are in what tcgetattr() returns
_LEFT_ALONE: Final = {  # they cannot be caught, end nothing, or come from a fault in this process
    getattr(signal, f"SIG{name}", None)
    for name in (
        *("KILL", "STOP", "CHLD", "CONT", "INFO", "TTIN", "TTOU", "URG", "WINCH"),
        *("BUS", "FPE", "ILL", "SEGV", "SYS"),
    )
}


def ask(question: str) -> bytes:
    """The line that is typed, with its newline; ``b""`` at an end of file.

    Raises OSError if there is no terminal, or when it hangs up.
    """
    terminal = os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return _Question(terminal, question).answer()
    except termios.error as error:
        raise OSError(*error.args) from None
    finally:
        os.close(terminal)


class _Question:
    def __init__(self, terminal: int, question: str) -> None:
        self._terminal = terminal
        self._question = question.encode()
        self._asked = False
        self._shown = termios.tcgetattr(terminal)
        self._hidden = self._shown.copy()
        self._hidden[_LOCAL_FLAGS] &= ~termios.ECHO

    def answer(self) -> bytes:
        handlers: dict[int, Any] = {signal.SIGCONT: self._pose}
        for number in signal.valid_signals() - _LEFT_ALONE:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                handlers[number] = self._suspend if number == signal.SIGTSTP else self._end
        before = [(number, signal.signal(number, handlers[number])) for number in handlers]
        try:
            self._pose()
            return self._read()
        finally:
            self._withdraw()
            for each, handler in before:
                signal.signal(each, handler)

    def _read(self) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (more := os.read(self._terminal, 4096)):
            line += more
        return line

    @property
    def _in_front(self) -> bool:
        """Whether this process may set up the terminal; in the background, that would stop it."""
        return os.tcgetpgrp(self._terminal) == os.getpgrp()

    def _pose(self, *_: object) -> None:
        """Ask, if what is typed can be seen, or it was never asked; also after a stop."""
        flags = termios.tcgetattr(self._terminal)[_LOCAL_FLAGS]
        if self._in_front and (flags & termios.ECHO or not self._asked):
            self._asked = True
            termios.tcsetattr(self._terminal, termios.TCSAFLUSH, self._hidden)
            os.write(self._terminal, self._question)

    def _withdraw(self) -> None:
        with contextlib.suppress(termios.error, OSError):  # it may have been hung up
            if self._in_front:
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._shown)
                os.write(self._terminal, b"\n")  # the one that was typed was not shown

    def _suspend(self, *_: object) -> None:
        self._withdraw()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        self._pose()

    def _end(self, number: int, _: object) -> None:
        self._withdraw()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
