"""The error tree: every error says what is wrong, with which value, and what to do next.

::

    StudyguideError
    ├── UsageError          a wrong setting or argument: nothing was started (exit code 2)
    ├── ImageError          one image cannot be done; the others can (exit code 1)
    ├── QueueError          Redis is absent, refuses us, or went away for good
    ├── MessageError        a message, result file or event log is not what it should be
    ├── ToolError           another program failed: its command, exit code and stderr
    └── Cancelled           a channel was cancelled because another stage failed
"""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

MORE_THREADS = "Use fewer --workers, or allow more threads and processes (ulimit -u, pids limit)"
# What JSON of another form than we wrote makes our code raise; nested too deep it is the last.
DAMAGE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class StudyguideError(Exception):
    """Base of all errors that this library raises on purpose.

    Parameters
    ----------
    problem : str
        What is wrong, naming the file or setting and the value found there.
    remedy : str
        What the reader can do about it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        sentences = (text for text in (self.problem, self.remedy) if text)
        return " ".join(text if text[-1] in ".?!" else f"{text}." for text in sentences)


class UsageError(StudyguideError):
    """A setting or an argument is wrong; nothing was started."""


class ImageError(StudyguideError):
    """One image cannot be read, blurred or saved; the others can."""


class QueueError(StudyguideError):
    """Redis is absent, refuses us, or went away for longer than we are willing to wait."""


class MessageError(StudyguideError):
    """A message, a result file or an event log is damaged or of another version."""


class ToolError(StudyguideError):
    """Another program failed.

    Parameters
    ----------
    command : sequence of str
        What was run, without secrets.
    exit_code : int or None
        Its exit code; None if it was stopped after a time-out.
    stderr : str
        What it said, as it said it.
    """

    def __init__(
        self, command: Sequence[str], exit_code: int | None, stderr: str, remedy: str = ""
    ) -> None:
        end = "timed out" if exit_code is None else f"ended with exit code {exit_code}"
        said = stderr.strip() or "it said nothing"
        super().__init__(f"`{' '.join(command)}` {end}: {said}", remedy)
        self.command = tuple(command)
        self.exit_code = exit_code
        self.stderr = stderr


JOINERS = "\u200c\u200d"  # of Persian, of Indian scripts and of emoji: they only join letters


def printable(text: str, newline: str = r"\n") -> str:
    """Escape what would control a terminal or forge a line: for all text that people are shown.

    Control characters, marks that change the direction of text, separators of lines and bytes that
    are not UTF-8 become what Python writes for them; a newline becomes `newline`.
    """
    if text.isprintable():  # nearly all text is: a log has millions of characters
        return text
    return "".join(newline if sign == "\n" else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    if sign in JOINERS or unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return sign
    return sign.encode("unicode_escape").decode()


@contextmanager
def explained(
    kind: type[StudyguideError], problem: str, remedy: str, *causes: type[Exception]
) -> Iterator[None]:
    """Tell what the system says, an OSError or one of `causes`, as one of these errors."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, *causes)):
            raise
        said = getattr(error, "strerror", None) or error
        raise kind(f"{problem} ({said})", remedy) from error


class Cancelled(StudyguideError):
    """A channel was cancelled because another stage failed or the run was stopped."""

    def __init__(self) -> None:
        super().__init__("The run was cancelled")
