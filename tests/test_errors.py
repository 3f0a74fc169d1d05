"""Every error names the problem and the remedy, and the tree is the one its module shows."""

import inspect

import pytest

from studyguide import errors
from studyguide.errors import (
    Cancelled,
    ImageError,
    MessageError,
    QueueError,
    StudyguideError,
    ToolError,
    UsageError,
    printable,
)

TREE = [UsageError, ImageError, QueueError, MessageError, ToolError, Cancelled]


@pytest.mark.parametrize("kind", [UsageError, ImageError, QueueError, MessageError])
def test_an_error_says_its_problem_and_its_remedy_in_full_sentences(
    kind: type[StudyguideError],
) -> None:
    error = kind("The kernel size is 4", "Use an odd number")
    assert str(error) == "The kernel size is 4. Use an odd number."
    assert (error.problem, error.remedy) == ("The kernel size is 4", "Use an odd number")


def test_an_error_without_a_remedy_ends_with_its_problem() -> None:
    assert str(MessageError("No tile 9")) == "No tile 9."


@pytest.mark.parametrize("problem", ["The decoder gave up.", "Wrong host or port?", "Stop!"])
def test_a_problem_that_ends_with_a_mark_gets_no_full_stop(problem: str) -> None:
    assert str(ImageError(problem, "Replace it")) == f"{problem} Replace it."


def test_a_tool_error_carries_the_command_the_exit_code_and_what_the_tool_said() -> None:
    error = ToolError(["kubectl", "get", "pods"], 3, "forbidden\n", "Ask for the right")
    assert str(error) == "`kubectl get pods` ended with exit code 3: forbidden. Ask for the right."
    assert error.command == ("kubectl", "get", "pods")
    assert (error.exit_code, error.stderr) == (3, "forbidden\n")


def test_a_tool_that_timed_out_in_silence_is_reported_as_such() -> None:
    assert str(ToolError(["redis-server"], None, " \n")) == (
        "`redis-server` timed out: it said nothing."
    )


def test_a_cancellation_explains_itself() -> None:
    assert str(Cancelled()) == "The run was cancelled."


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    own = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__ and kind is not StudyguideError
    ]
    assert sorted(own, key=str) == sorted(TREE, key=str)
    for kind in own:
        assert kind.__bases__ == (StudyguideError,)
        assert f"── {kind.__name__} " in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("straße 猫.png", "straße 猫.png"),
        ("a\x1b[31m\a\r\t\x7f", r"a\x1b[31m\x07\r\t\x7f"),
        ("c1 \x9b \x85", r"c1 \x9b \x85"),
        ("\u202egnp.exe\u2066\u200f", r"\u202egnp.exe\u2066\u200f"),
        ("lines\n\u2028\u2029", r"lines\n\u2028\u2029"),
        ("no UTF-8: \udcff", r"no UTF-8: \udcff"),
        (
            "ideographic\u3000space, नहीं\u200c, 👩\u200d🚀",
            "ideographic\u3000space, नहीं\u200c, 👩\u200d🚀",
        ),
    ],
)
def test_what_would_control_a_terminal_is_escaped_and_nothing_else(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_message_of_several_lines_can_be_indented() -> None:
    assert printable("said:\nno\x1b", "\n  ") == "said:\n  no\\x1b"
