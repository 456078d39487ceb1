"""The large-image profile is given where the user has chosen nothing, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gps_denied_inference.clients.fastdds_profile import PROFILE_VARIABLES, fastdds_environment

SHARE = Path("/opt/share")
OURS = dict.fromkeys(PROFILE_VARIABLES, "/opt/share/config/fastdds_large_images.xml")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, OURS),
        ({"RMW_IMPLEMENTATION": "rmw_fastrtps_dynamic_cpp"}, OURS),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": ""}, OURS),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "/home/me/mine.xml"}, {}),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "/home/me/mine.xml"}, {}),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, {}),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, {}),
        ({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}, {}),
    ],
)
def test_auto(environment, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fastdds_environment("auto", SHARE, environment) == expected


def test_a_profile_in_the_working_folder_is_the_users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DEFAULT_FASTRTPS_PROFILES.xml").touch()
    assert fastdds_environment("auto", SHARE, {}) == {}


def test_what_was_named_is_given_or_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.xml").touch()
    mine = dict.fromkeys(PROFILE_VARIABLES, str(tmp_path / "mine.xml"))
    assert fastdds_environment("mine.xml", SHARE, {PROFILE_VARIABLES[0]: "/other.xml"}) == mine
    assert fastdds_environment("none", SHARE, {}) == {}
    with pytest.raises(ValueError, match="fastdds_profile:=other.xml: no such file"):
        fastdds_environment("other.xml", SHARE, {})
