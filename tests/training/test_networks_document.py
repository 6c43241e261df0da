"""What the document of networks shows is what the configuration reads."""

import re
import tomllib
from pathlib import Path

import pytest

from training.config import Config, Data, Ensembling, Fitting, Network, read_config
from training.export import convert
from training.model import Forecaster

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)


def keys(section: str) -> dict[str, str]:
    """The keys of a section's table, each with the default that the document tells."""
    table = DOCUMENT.partition(section)[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", table, re.MULTILINE))


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_a_configuration_whose_network_is_written_as_native_nodes(example: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(example)

    config = read_config(tmp_path / "run.toml", {})

    network = Forecaster.from_network(config.network, features=1, season=7, horizon=config.data.horizon or 7)
    kinds = [node.op_type for node in convert(network).graph.node]
    assert sum(kinds.count(kind) for kind in ("LSTM", "GRU", "RNN")) == len(config.network.layers)


def test_every_cell_and_output_is_shown() -> None:
    shown = [Config.model_validate(tomllib.loads(example)).network for example in EXAMPLES]

    assert {network.cell for network in shown} == {"lstm", "gru", "rnn", "peephole_lstm"}
    assert {network.output for network in shown} == {"sequence", "vector", "horizon"}


def test_every_key_of_a_network_is_told() -> None:
    assert set(keys("## Keys of `[network]`")) == set(Network.model_fields)


def test_every_key_of_an_ensemble_is_told() -> None:
    assert set(keys("## Keys of `[ensemble]`")) == set(Ensembling.model_fields)


def test_every_key_of_fitting_is_told() -> None:
    assert set(keys("## Keys of `[fitting]`")) == set(Fitting.model_fields)


def test_every_key_of_the_data_is_told() -> None:
    assert set(keys("## Keys of `[data]`")) == set(Data.model_fields)
