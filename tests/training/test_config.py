"""Configurations: what they may hold, and the one line that each bad one gets."""

from pathlib import Path

import pytest

from training.config import Config, Network, read_config
from training.errors import ConfigError

BAD: dict[str, tuple[str, str]] = {
    "a cell that there is not": (
        '[network]\ncell = "lstn"',
        "network.cell: Input should be 'lstm', 'gru', 'rnn' or 'peephole_lstm'",
    ),
    "no layers": ("[network]\nlayers = []", "network.layers: Tuple should have at least 1 item"),
    "a layer of no units": ("[network]\nlayers = [8, 0]", "network.layers: Input should be greater than or equal to 1"),
    "an output that there is not": (
        '[network]\noutput = "next"',
        "network.output: Input should be 'sequence', 'vector' or 'horizon'",
    ),
    "an activation that there is not": (
        '[network]\nactivation = "gelu"',
        "network.activation: Input should be 'tanh', 'relu', 'leaky_relu' or 'elu'",
    ),
    "an initialiser that there is not": (
        '[network]\ninitialiser = "xavier"',
        "network.initialiser: Input should be 'glorot_uniform', 'glorot_normal', ",
    ),
    "a normalisation that there is not": (
        '[network]\nnormalisation = "group"',
        "network.normalisation: Input should be 'none', 'layer' or 'batch'",
    ),
    "a convolution without filters": (
        "[network.convolution]\nkernel = 3",
        "network.convolution.filters: Field required",
    ),
    "a convolution of one step": (
        "[network.convolution]\nfilters = 4\nkernel = 1",
        "network.convolution.kernel: Input should be greater than or equal to 2",
    ),
    "a scaling of nothing": (
        "[network]\nscaling = 0",
        "network.scaling: Input should be 'window', 'season' or 'none'; or Input",
    ),
    "closing epochs of several epochs of a seed": (
        "[fitting]\nclosing_epochs = 2\n[ensemble]\ncheckpoints = 2",
        "fitting.closing_epochs: they go on from one epoch of each seed",
    ),
    "a scaling by a season that is looked for": (
        '[network]\nscaling = "season"\nlags = "found"',
        "network.scaling: 'season' goes with network.lags of 'season' or a list",
    ),
    "a test part of no steps": (
        "[data]\ntest_steps = 0",
        "data.test_steps: Input should be greater than or equal to 1",
    ),
    "lags in words": ('[network]\nlags = "week"', "network.lags: Input should be a valid tuple; or Input should be"),
    "a loss that there is not": ('[fitting]\nloss = "rmse"', "fitting.loss: Input should be 'huber', 'mae', 'mse' or"),
    "an optimiser that there is not": ('[fitting]\noptimiser = "lion"', "fitting.optimiser: Input should be 'adam' or"),
    "an unknown key": ("[network]\nunits = 8", "network.units: there is no such key; there may be cell, layers, "),
    "an unknown key of a convolution": (
        "[network.convolution]\nfilters = 4\nstride = 2",
        "network.convolution.stride: there is no such key; there may be filters, kernel, activation",
    ),
    "an unknown section": (
        "[train]\nepochs = 3",
        "train: there is no such key; there may be name, description, seed, ",
    ),
    "a section that is none": ("network = 3", "network: Input should be a valid dictionary"),
    "a bidirectional network that carries its state": (
        '[network]\nbidirectional = true\noutput = "vector"\ncarry = true',
        "network.carry: a bidirectional network reads its window from both ends",
    ),
    "a state carried that was never learnt to be": (
        '[network]\noutput = "vector"\ncarry = true\n[fitting]\niterated = false',
        "network.carry: with network.output = 'vector' a state is carried well only where iterated forecasts",
    ),
    "a bidirectional network that learns at every step": (
        "[network]\nbidirectional = true",
        "network.output: at each step of a sequence a bidirectional network has already read the next one",
    ),
    "a horizon at once that is not the one scored": (
        '[data]\nhorizon = 24\n[network]\noutput = "horizon"\nhorizon = 12',
        "network.horizon: the horizon given at once must be the one that is scored",
    ),
    "a horizon at once for one step": ("[network]\nhorizon = 12", "network.horizon: goes with network.output"),
    "a decoder for one step": ("[network]\ndecoder = [8]", "network.decoder: goes with network.output = 'horizon'"),
    "found lags before a plain head": (
        '[network]\nhead = "plain"\nlags = "found"',
        "network.lags: 'found' goes with network.head = 'references' alone",
    ),
    "pinball without a quantile": ('[fitting]\nloss = "pinball"', "fitting.quantile: loss 'pinball' needs one"),
    "a quantile without pinball": ("[fitting]\nquantile = 0.5", "fitting.quantile: goes with fitting.loss = 'pinball'"),
    "a quantile beyond all": (
        '[fitting]\nloss = "pinball"\nquantile = 1.0',
        "fitting.quantile: Input should be less than 1",
    ),
    "momentum for Adam": ("[fitting]\nmomentum = 0.9", "fitting.momentum: goes with fitting.optimiser = 'sgd' alone"),
    "two ways of clipping": ("[fitting]\nclip_value = 1.0", "fitting.clip_value: a gradient is clipped in one way"),
    "ensemble: an autoregression of one step after another": (
        "[ensemble]\nautoregression = 24",
        "ensemble.autoregression: goes with network.output = 'horizon' alone: leave it away",
    ),
    "ensemble: an autoregression that would see too much": (
        '[network]\noutput = "horizon"\ncontext_length = 20\n[ensemble]\nautoregression = 24',
        "ensemble.autoregression: it would see more steps than the networks are given (network.context_length): may be "
        "at most 20",
    ),
    "ensemble: no seeds": ("[ensemble]\nseeds = 0", "ensemble.seeds: Input should be greater than or equal to 1"),
    "ensemble: no checkpoints": (
        "[ensemble]\ncheckpoints = 0",
        "ensemble.checkpoints: Input should be greater than or equal",
    ),
    "ensemble: a combination that there is not": (
        '[ensemble]\ncombine = "sum"',
        "ensemble.combine: Input should be 'mean' or 'median'",
    ),
    "ensemble: an unknown key": (
        "[ensemble]\nmembers = 3",
        "ensemble.members: there is no such key; there may be seeds, ",
    ),
    "ensemble: more checkpoints than epochs": (
        "[ensemble]\ncheckpoints = 4\n[fitting]\nepochs = 3",
        "ensemble.checkpoints: fitting may stop after 3 epochs (fitting.epochs, fitting.patience) and has no more to "
        "take: may be at most 3",
    ),
    "ensemble: more checkpoints than patience": (
        "[ensemble]\ncheckpoints = 4\n[fitting]\npatience = 2",
        "ensemble.checkpoints: fitting may stop after 3 epochs",
    ),
    "ensemble: an average that keeps all": ("[fitting]\naverage = 1.0", "fitting.average: Input should be less than 1"),
    "ensemble: an average that keeps nothing": (
        "[fitting]\naverage = 0.0",
        "fitting.average: Input should be greater than 0",
    ),
    "tune: no widths": ("[tune]\nwidth = []", "tune.width: Tuple should have at least 1 item"),
    "tune: a layer of no units": ("[tune]\nwidth = [0]", "tune.width: Input should be greater than or equal to 1"),
    "tune: a depth in words": ('[tune]\ndepth = ["two"]', "tune.depth: Input should be a valid integer"),
    "tune: a context of no steps": (
        "[tune]\ncontext_length = [0]",
        "tune.context_length: Input should be greater than",
    ),
    "tune: one rate": ("[tune]\nlearning_rate = [1e-3]", "tune.learning_rate"),
    "tune: rates the wrong way round": (
        "[tune]\nlearning_rate = [1e-2, 1e-3]",
        "tune.learning_rate: the first number is the lowest rate, the second the highest",
    ),
    "tune: a rate of nothing": ("[tune]\nlearning_rate = [0, 1]", "tune.learning_rate: Input should be greater than 0"),
    "tune: a context shorter than what an autoregression sees": (
        '[network]\noutput = "horizon"\n[ensemble]\nautoregression = 100\n[tune]\ncontext_length = [96, 192]',
        "tune.context_length: the linear autoregression would see more steps (ensemble.autoregression): may be at "
        "least 100",
    ),
    "tune: a loss that there is not": ('[tune]\nloss = ["rmse"]', "tune.loss: Input should be 'huber', 'mae' or 'mse'"),
    "tune: a loss beside a quantile": (
        '[tune]\nloss = ["mae"]\n[fitting]\nloss = "pinball"\nquantile = 0.5',
        "tune.loss: with fitting.loss = 'pinball' a quantile is fitted",
    ),
    "tune: a cell that there is not": ('[tune]\ncell = ["lstn"]', "tune.cell: Input should be 'lstm', 'gru', "),
    "tune: an unknown key": ("[tune]\nunits = [8]", "tune.units: there is no such key; there may be width, depth, "),
}


@pytest.mark.parametrize(("document", "told"), BAD.values(), ids=BAD)
def test_a_bad_configuration_gets_one_line_naming_the_key_and_what_it_may_hold(
    document: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text(document)

    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "run.toml", {})

    assert str(caught.value).startswith(f"configuration key {told}")
    assert "\n" not in str(caught.value)


def test_a_configuration_is_read_back_from_what_an_artifact_says_of_it() -> None:
    given = Config.model_validate(
        {
            "network": {"cell": "gru", "convolution": {"filters": 4}, "output": "horizon", "decoder": [4]},
            "fitting": {"loss": "mae", "optimiser": "sgd", "clip_norm": 0, "clip_value": 1.0},
        }
    )
    assert Config.model_validate(given.model_dump(mode="json")) == given


def test_a_network_says_in_words_what_it_is() -> None:
    assert Network(layers=(32, 16)).summary == "stacked LSTM of 32 and 16 units"
    assert Network(cell="gru", layers=(8,), bidirectional=True, output="vector").summary == (
        "bidirectional GRU of 8 units"
    )
