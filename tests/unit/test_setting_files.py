"""Secrets in files: `BILLING_X_FILE` names what `BILLING_X` says, and a file that cannot be read stops the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing.connections import setting_files
from billing.core.errors import InvalidValue
from billing.core.settings import FIELDS
from billing.integration import configuration

URL = "redis://billing:s3cret@redis:6379/0"


def given(path: Path, content: bytes = URL.encode()) -> dict[str, str]:
    """Write a file and return the environment that names it."""
    path.write_bytes(content)
    return {"BILLING_REDIS_URL_FILE": str(path)}


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_setting_is_what_its_file_says_without_the_end_of_the_line(tmp_path: Path, end: str) -> None:
    environment = given(tmp_path / "url", (URL + end).encode())
    assert setting_files.read(environment, FIELDS) == {"BILLING_REDIS_URL": URL}


def test_the_settings_of_a_process_come_from_files_too_and_they_win_over_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given(tmp_path / "url").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BILLING_CONNECTION_FILE", str(tmp_path / "none"))
    assert configuration.read({"billing_redis_url": "redis://elsewhere/0"}).redis_url == URL


def test_what_is_no_setting_names_no_file() -> None:
    """`BILLING_CONNECTION_FILE` is a file of another kind."""
    assert setting_files.read({"BILLING_CONNECTION_FILE": "/nowhere", "REDIS_URL_FILE": "/nowhere"}, FIELDS) == {}


def test_a_setting_and_its_file_together_are_refused(tmp_path: Path) -> None:
    """Else one of them would be looked at in vain."""
    environment = {**given(tmp_path / "url"), "BILLING_REDIS_URL": URL}
    with pytest.raises(InvalidValue, match="must not be set beside BILLING_REDIS_URL"):
        setting_files.read(environment, FIELDS)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (None, r"must be a file that can be read \(No such file or directory\)"),
        (b"", "must not be empty"),
        (b" \n", "must not be empty"),
        (b"\xff\xfe", "must be a file of UTF-8 text"),
        (b"s3cret" * 20_000, "must have at most 65536 bytes"),
    ],
)
def test_a_file_that_says_nothing_is_refused_by_variable_and_path(
    tmp_path: Path, content: bytes | None, rule: str
) -> None:
    path = tmp_path / "url"
    environment = {"BILLING_REDIS_URL_FILE": str(path)} if content is None else given(path, content)
    with pytest.raises(InvalidValue, match=rule) as refused:
        setting_files.read(environment, FIELDS)
    assert str(refused.value).startswith(f"BILLING_REDIS_URL_FILE: '{path}': ")
    assert "s3cret" not in str(refused.value)


def test_a_directory_and_an_impossible_path_are_refused(tmp_path: Path) -> None:
    for path in (str(tmp_path), "nul\0byte"):
        with pytest.raises(InvalidValue, match="must be a file that can be read"):
            setting_files.read({"BILLING_REDIS_URL_FILE": path}, FIELDS)


def test_a_bad_value_in_a_file_does_not_show_its_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given(tmp_path / "url", b"http://billing:s3cret@redis").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidValue, match="BILLING_REDIS_URL") as refused:
        configuration.read({})
    assert "s3cret" not in str(refused.value)
