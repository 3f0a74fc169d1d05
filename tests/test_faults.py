"""Planted faults strike their tile and no other."""

import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyguide.errors import UsageError
from studyguide.machinery.faults import KINDS, Fault, PlantedError, strike

faults = st.builds(
    Fault, st.sampled_from(KINDS), st.text(min_size=1), st.integers(0, 10**9)
)  # names with colons included


@given(fault=faults)
def test_a_fault_comes_back_from_its_text(fault: Fault) -> None:
    assert Fault.parse(str(fault)) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "raise",
        "raise:a.png",
        "raise::3",
        "explode:a.png:3",
        "raise:a.png:",
        "raise:a.png:-1",
        "raise:a.png:1.5",
        "raise:a.png:x",
        "raise:a.png:²",
    ],
)
def test_a_text_of_another_form_is_refused_and_the_form_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="KIND:IMAGE:TILE") as caught:
        Fault.parse(text)
    assert repr(text) in caught.value.problem


def test_raise_strikes_at_every_attempt() -> None:
    for attempt in (1, 2, 3):
        with pytest.raises(PlantedError, match=r"raise:a\.png:3"):
            strike([Fault("raise", "a.png", 3)], "a.png", 3, attempt)


def test_flaky_strikes_at_the_first_attempt_only() -> None:
    flaky = [Fault("flaky", "a.png", 3)]
    with pytest.raises(PlantedError):
        strike(flaky, "a.png", 3, 1)
    strike(flaky, "a.png", 3, 2)


def test_slow_takes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    strike([Fault("slow", "a.png", 3)], "a.png", 3, 1)
    assert slept == [1.0]


def test_poison_kills_the_process_that_touches_it() -> None:
    code = (
        "from studyguide.machinery.faults import Fault, strike\n"
        "strike([Fault('poison', 'a.png', 3)], 'a.png', 3, 1)\n"
        "print('still alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("image", "tile"), [("b.png", 3), ("a.png", 4)])
def test_other_tiles_are_spared(
    kind: str, image: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.kill", None)
    monkeypatch.setattr(time, "sleep", None)
    strike([Fault(kind, "a.png", 3)], image, tile, 1)
