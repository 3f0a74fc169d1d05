"""SECURITY.md is true: git tracks no secret, and the tests that the page names are there."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a key of a cloud": r"\b(AKIA[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_\w{36}|xox[abp]-\w{10,})",
    "a token": r"\beyJ[\w-]{20,}\.eyJ[\w-]{20,}\.",
    "a password in a URL": r"\w+://[^/\s:@\"']*:([0-9a-f]{16,})@",
    "a password of Redis": r"requirepass +[0-9a-f]{16,}",
}
KEY = "AKIA" + "Q" * 16  # written so that this file does not hold it
KNOWN = {
    "a private key": "-----BEGIN RSA PRIVATE" + " KEY-----",
    "a key of a cloud": f"aws_access_key_id = {KEY}",
    "a token": ".".join(["eyJ" + "a" * 30, "eyJ" + "b" * 30, "c"]),
    "a password in a URL": "redis://:" + "0123456789abcdef" + "@127.0.0.1:6379/0",
    "a password of Redis": "requirepass " + "0123456789abcdef",
}


def tracked() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout")
    return [
        path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()
    ]


@pytest.mark.slow
def test_no_file_of_the_project_holds_a_secret() -> None:
    """Notebooks, recorded runs and manifests among them."""
    files = tracked()
    assert len(files) > 100
    found = [
        f"{what} in {path.relative_to(ROOT)}"
        for path in files
        for what, pattern in SECRETS.items()
        if re.search(pattern, path.read_bytes().decode(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_is_noticed(what: str) -> None:
    assert re.search(SECRETS[what], KNOWN[what])


def test_every_test_that_the_security_page_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    code = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))
    assert len(named) > 15
    assert named - defined == set()


# Named on the page, and in no breach: that page says what breaks them.
OTHERWISE = {
    "test_the_password_is_in_no_process_list",  # all processes; its own test has the server
    "test_no_file_of_the_project_holds_a_secret",  # test_a_secret_is_noticed
    "test_nothing_is_lost_whatever_strikes",  # `make chaos`: a fault that does not bite fails
}


def test_each_promise_has_a_breach_that_can_still_be_made() -> None:
    """`python tools/promises.py` makes them; here is only looked whether it could."""
    breaches = yaml.safe_load((ROOT / "tools" / "promises.yml").read_text())
    for file, each in breaches.items():
        text = (ROOT / file).read_text()
        assert [breach["line"] for breach in each if breach["line"] not in text] == []
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    broken = {breach["test"] for each in breaches.values() for breach in each}
    assert named == broken | OTHERWISE
