"""Signed models are taken up by a running service, and under load nothing else ever answers."""

from pathlib import Path

from service.signing import make_signing_key, sign
from tests.artifacts import write_artifact
from tests.end_to_end.test_reload import (
    move,
    rejected,
    scraped,
    under_load,
    wait_until_answered_by,
    wait_until_rejected,
)


def test_a_signed_version_is_served_and_an_unsigned_one_is_refused_while_the_old_one_goes_on(tmp_path: Path) -> None:
    models, keys = tmp_path / "models", tmp_path / "keys"
    keys.mkdir()
    private, _ = make_signing_key(keys, "release")
    write_artifact(models / "default" / "1" / "model.onnx")
    sign(private, models / "default" / "1")
    with under_load(models, tmp_path / "log", signing_keys=keys) as (service, load, client):
        write_artifact(models / ".coming" / "model.onnx", "mean")
        unsigned = move(models / ".coming", models / "default" / "2")
        reason = wait_until_rejected(client, "default/2")
        assert reason.startswith("it is not signed: model.onnx.sig is not beside it")
        assert scraped(client)["leadtime_model_files_refused"] >= 1
        assert load.versions == ["1"]
        sign(private, unsigned)
        wait_until_answered_by(load, "2")
        log = service.log.read_text()
        assert rejected(client) == {}
    assert f"default/2: not served: {reason}" in log
    assert "models must be signed with one of these keys: release (" in log
