"""Settings refuse what is out of range, and survive the way through a command line."""

import argparse
import json
import math
from contextlib import suppress
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studyguide.errors import UsageError
from studyguide.settings import (
    MAX_KERNEL_SIZE,
    METHODS,
    OPTIONS,
    Blur,
    Delivery,
    Settings,
    add_options,
    describe,
    from_options,
    redis_url,
    to_options,
)

# --- defaults ------------------------------------------------------------------------------------


def test_without_options_the_settings_are_the_defaults_of_the_course() -> None:
    settings = from_options({})
    assert settings == Settings()
    assert (settings.workers, settings.tile_size, settings.queue_size) == (10, 256, 100)
    assert settings.blur == Blur(21, 7.0, "direct")


@given(radius=st.integers(0, MAX_KERNEL_SIZE // 2))
def test_sigma_is_a_third_of_the_kernel_size_unless_given(radius: int) -> None:
    size = 2 * radius + 1
    assert Blur.of(size).sigma == size / 3
    assert Blur.of(size, 1.5).sigma == 1.5
    assert Blur.of(size).radius == radius


# --- refusals ------------------------------------------------------------------------------------


def refused(value: object, **settings: Any) -> str:
    """The message that refuses these settings; it names the value and a remedy."""
    with pytest.raises(UsageError) as caught:
        from_options(settings)
    assert repr(value) in caught.value.problem
    assert caught.value.remedy.startswith("Use ")
    return str(caught.value)


@pytest.mark.parametrize("size", [0, -1, -21, 2, 20, 103, 21.0, "21", True, None, math.nan])
def test_a_kernel_size_that_is_no_odd_number_up_to_101_is_refused(size: object) -> None:
    assert "kernel size" in refused(size, kernel_size=size, sigma=1.0)
    refused(size, kernel_size=size)


@pytest.mark.parametrize("sigma", [0, 0.0, -0.0, -1.0, math.nan, math.inf, -math.inf, "7", [7]])
def test_a_sigma_that_is_no_positive_number_is_refused(sigma: object) -> None:
    assert "sigma" in refused(sigma, sigma=sigma)


@pytest.mark.parametrize("method", ["fast", "", None, "Direct"])
def test_an_unknown_method_is_refused_and_the_known_ones_are_named(method: object) -> None:
    message = refused(method, method=method)
    assert all(known in message for known in METHODS)


@pytest.mark.parametrize(
    "name", ["workers", "tile_size", "queue_size", "images_in_memory", "instances", "max_attempts"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, "4", True, None, math.nan])
def test_a_count_that_is_no_whole_number_from_1_on_is_refused(name: str, value: object) -> None:
    message = refused(value, **{name: value})
    assert name in message or name.replace("_", " ") in message


@pytest.mark.parametrize("name", ["visibility_s", "backoff_s", "quiet_s", "patience_s"])
@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, "3", None, True])
def test_a_time_that_is_no_positive_number_of_seconds_is_refused(name: str, value: object) -> None:
    message = refused(value, **{name: value})
    assert name in message
    assert "seconds" in message


def test_an_unknown_payload_is_refused() -> None:
    assert "file or redis" in refused("disk", payload="disk")


junk = (
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text() | st.binary()
)
junk |= st.lists(st.integers()) | st.dictionaries(st.text(), st.integers())


@given(given=st.dictionaries(st.sampled_from(sorted(set(OPTIONS) - {"images", "output"})), junk))
def test_whatever_is_given_makes_settings_or_is_refused_with_a_remedy(
    given: dict[str, Any],
) -> None:
    with suppress(UsageError):
        settings = from_options(given)
        parser = argparse.ArgumentParser()
        add_options(parser)
        assert from_options(vars(parser.parse_args(to_options(settings)))) == settings


texts = st.text() | st.integers(-3, 3).map(str) | st.floats().map(str)


@given(name=st.sampled_from(sorted(OPTIONS)), text=texts)
def test_whatever_text_an_option_gets_makes_settings_or_is_refused(name: str, text: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser)
    (flag,) = (a.option_strings[0] for a in parser._actions if a.dest == name)
    with suppress(UsageError, argparse.ArgumentError):
        settings = from_options(vars(parser.parse_args([f"{flag}={text}"])))
        counts = (settings.workers, settings.tile_size, settings.queue_size, settings.instances)
        assert min(*counts, settings.images_in_memory, settings.delivery.max_attempts) >= 1


# --- settings as options -------------------------------------------------------------------------

counts = st.integers(1, 10**6)
seconds = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)
folders = st.text("abcXYZ 0123./é日", min_size=1).map(Path)
blurs = st.builds(
    Blur,
    st.integers(0, MAX_KERNEL_SIZE // 2).map(lambda radius: 2 * radius + 1),
    seconds,
    st.sampled_from(METHODS),
)
deliveries = st.builds(
    Delivery, seconds, counts, seconds, seconds, seconds, st.sampled_from(["file", "redis"])
)
every_setting = st.builds(
    Settings, folders, folders, counts, counts, counts, counts, counts, blurs, deliveries
)


@given(settings=every_setting)
def test_settings_come_back_from_the_command_line_that_they_make(settings: Settings) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert from_options(vars(parser.parse_args(to_options(settings)))) == settings


@given(settings=every_setting)
def test_settings_come_back_from_json(settings: Settings) -> None:
    flat = json.loads(json.dumps(describe(settings)))
    folders = {name: Path(flat[name]) for name in ("images", "output")}
    assert from_options({**flat, **folders}) == settings


def test_options_that_are_not_given_keep_their_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    given = vars(parser.parse_args(["--workers", "3", "--visibility", "0.5"]))
    assert from_options(given) == replace(
        Settings(), workers=3, delivery=replace(Delivery(), visibility_s=0.5)
    )


def test_every_setting_has_an_option_and_every_option_a_setting() -> None:
    own = {item.name for kind in (Settings, Blur, Delivery) for item in fields(kind)}
    assert set(OPTIONS) == own - {"blur", "delivery"}


# --- the environment -----------------------------------------------------------------------------


def test_the_redis_url_comes_from_the_environment_and_an_empty_one_counts_as_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://somewhere:6379")
    assert redis_url() == "redis://somewhere:6379"
    monkeypatch.setenv("REDIS_URL", "")
    assert redis_url() is None
    monkeypatch.delenv("REDIS_URL")
    assert redis_url() is None


def test_numbers_of_numpy_are_kept_as_numbers_that_json_knows() -> None:
    counts = {name: np.int64(3) for name in ("workers", "tile_size", "instances", "max_attempts")}
    times = {name: np.float32(2) for name in ("visibility_s", "patience_s")}
    settings = from_options({**counts, **times, "kernel_size": np.uint8(21), "sigma": Fraction(7)})
    flat = describe(settings)
    assert {name: flat[name] for name in counts} == dict.fromkeys(counts, 3)
    assert {name: flat[name] for name in times} == dict.fromkeys(times, 2.0)
    assert json.loads(json.dumps(flat)) == flat
    assert settings.blur == Blur.of(21, 7.0)


@pytest.mark.parametrize("value", [np.True_, np.array([3]), np.nan, 10**400, 3j])
def test_what_is_no_number_is_refused_of_whatever_type(value: object) -> None:
    for name in ("sigma", "visibility_s", "kernel_size"):
        assert refused(value, **{name: value})
