"""Settings from the environment."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.cores import usable_cores
from service.errors import SettingsError
from service.settings import Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert (settings.host, settings.port, settings.workers, settings.models) == (
        "127.0.0.1",
        8000,
        usable_cores(),
        None,
    )
    assert (settings.default_model, settings.max_body_bytes) == ("default", 8 * 1024 * 1024)
    assert settings.max_windows == 16_384
    assert (settings.max_window_length, settings.max_horizon, settings.max_batch) == (65_536, 1000, 1024)
    assert (settings.keep_alive_seconds, settings.drain_seconds, settings.refresh_seconds) == (75, 30, 2.0)


def test_variables_with_the_prefix_are_read_and_others_are_ignored(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {"LEADTIME_PORT": "9000", "LEADTIME_MODELS": str(tmp_path), "LEADTIME_REFRESH_SECONDS": "0", "PORT": "1"}
    )
    assert (settings.port, settings.models, settings.refresh_seconds) == (9000, tmp_path, 0)


def test_the_environment_of_the_process_is_not_read_behind_the_callers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADTIME_PORT", "9000")
    assert Settings.from_environment({}).port == 8000
    assert Settings().port == 8000


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("LEADTIME_PROT", "LEADTIME_PORT"),
        ("LEADTIME_MAXWINDOWS", "LEADTIME_MAX_WINDOWS"),
        ("LEADTIME_MODEL_FOLDER", "LEADTIME_MODELS"),
        ("LEADTIME_MAX_BODY_SIZE", "LEADTIME_MAX_BODY_BYTES"),
        ("leadtime_port", "LEADTIME_PORT"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_right_one(name: str, nearest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: "1"})
    assert str(caught.value) == f"{name} is no setting; the nearest is {nearest}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", ""),
        ("HOST", ""),
        ("WORKERS", "0"),
        ("WORKERS", "1.5"),
        ("MAX_BODY_BYTES", "0"),
        ("MAX_WINDOWS", "-1"),
        ("MAX_HORIZON", "1e99"),
        ("MAX_BATCH", "0"),
        ("REFRESH_SECONDS", "nan"),
        ("REFRESH_SECONDS", "-1"),
        ("NOTICE_SECONDS", "inf"),
        ("KEEP_ALIVE_SECONDS", "0"),
        ("DRAIN_SECONDS", "-1"),
        ("DEFAULT_MODEL", "../secret"),
        ("LOG_LEVEL", "loud"),
        ("MODELS", __file__),
        ("MODELS", ""),
        ("KEYS", ""),
        ("ANONYMOUS_LIMIT", "often"),
        ("TLS_CERTIFICATE", ""),
        ("CORS_ORIGINS", ""),
        ("CORS_ORIGINS", "example.org"),
        ("CORS_ORIGINS", "https://example.org/path"),
        ("CORS_ORIGINS", "https://*.example.org"),
    ],
)
def test_a_value_that_cannot_be_held_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^LEADTIME_{name}: "):
        Settings.from_environment({f"LEADTIME_{name}": value})


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"LEADTIME_PORT": "x", "LEADTIME_WORKERS": "0", "LEADTIME_WHAT": ""})
    assert [part.split()[0] for part in str(caught.value).split("; ")[::2]] == ["LEADTIME_WHAT", "LEADTIME_PORT:"]
    assert "LEADTIME_WORKERS: " in str(caught.value)


def test_a_models_folder_that_is_not_there_yet_is_accepted(tmp_path: Path) -> None:
    assert Settings.from_environment({"LEADTIME_MODELS": str(tmp_path / "later")}).models == tmp_path / "later"


def test_origins_are_read_with_commas_between() -> None:
    given = {"LEADTIME_CORS_ORIGINS": "https://example.org, http://localhost:3000/"}
    assert Settings.from_environment(given).cors_origins == ("https://example.org", "http://localhost:3000")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]
