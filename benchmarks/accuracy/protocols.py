"""The protocols by which forecasts are scored, each as its publisher defined it: origins, horizon, season, measures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from benchmarks.accuracy import sources
from training.config import Data
from training.rolling import Terms
from training.table import Table

Measure = Literal["MAE", "MSE", "sMAPE", "MASE", "OWA", "MSIS"]

M4_NAIVE2: Final = (18.383, 2.395)
"""sMAPE and MASE of Naive2 on M4 Hourly, as the organisers published them: what OWA divides by."""

_MONTH: Final = 30 * 24  # hours, as those who use ETTh1 count them


@dataclass(frozen=True)
class Published:
    """A figure that others report, in the order of a protocol's measures; None where they report none.

    `method` is the reference of a backtest that must come to the same figures, where there is one.
    """

    name: str
    figures: tuple[float | None, ...]
    method: str | None = None


@dataclass(frozen=True)
class Protocol:
    """How forecasts of some series are scored.

    Attributes:
        title: what is forecast, as a heading.
        told: the protocol in words.
        read: the table, from the folder of public series.
        data: which columns hold what.
        horizon: steps ahead.
        measures: what is told, the first one being the one that models are chosen by.
        published: what others report.
        origins: of each series, the last ones.
        stride: steps between them.
        steps: leading steps of the table that are used; None for all.
        mase_season: steps apart of the differences that MASE divides by, where it is not the season.
        own_past: whether MASE divides by what lies before each origin, instead of before the first.
        standardised_by: leading steps by whose mean and deviation values are standardised for MAE and MSE.
        level: of the intervals that are scored, in percent.
        validation_origins: as `origins`, for choosing; None for as many.
    """

    title: str
    told: str
    read: Callable[[Path], Table]
    data: Data
    horizon: int
    measures: tuple[Measure, ...]
    published: tuple[Published, ...] = ()
    origins: int = 1
    stride: int = 1
    steps: int | None = None
    mase_season: int | None = None
    own_past: bool = False
    standardised_by: int | None = None
    level: float | None = None
    validation_origins: int | None = None
    held_back: int = field(default=0)
    """Last steps of each series that do not exist for it."""

    @property
    def span(self) -> int:
        """Last steps of each series that are scored."""
        return (self.origins - 1) * self.stride + self.horizon

    @property
    def terms(self) -> Terms:
        """The same, as `python -m training backtest` takes it."""
        return Terms(
            horizon=self.horizon,
            origins=self.origins,
            stride=self.stride,
            levels=None if self.level is None else (self.level,),
            own_past=self.own_past,
            mase_season=self.mase_season,
            basis="artifact" if self.level is None else "window",
        )

    def for_validation(self) -> "Protocol":
        """The same one test part earlier: for choosing by, while the test part does not exist."""
        return replace(self, origins=self.validation_origins or self.origins, held_back=self.held_back + self.span)

    def table(self, folder: Path) -> Table:
        """The series, as far as the protocol uses them.

        Raises:
            DataError: the folder does not hold them.
        """
        table = self.read(folder)
        frame = table.frame if self.steps is None else table.frame.iloc[: self.steps]
        if self.held_back and self.data.series is None:
            frame = frame.iloc[: -self.held_back]
        elif self.held_back:
            frame = frame.groupby(self.data.series, sort=False).head(-self.held_back)
        return Table(frame, table.source, table.unit)


_ETTH1: Final = Protocol(
    title="",
    told="",
    read=sources.etth1,
    data=Data(target=("OT",), time="date", frequency="h", season=24),
    horizon=24,
    measures=("MSE", "MAE"),
    steps=20 * _MONTH,
    standardised_by=12 * _MONTH,
)


def _etth1(horizon: int, *published: Published) -> Protocol:
    return replace(
        _ETTH1,
        title=f"ETTh1, oil temperature, {horizon} hours",
        told=f"The last 4 of 20 months of 30 days, every origin, {horizon} hours ahead; standardised by the mean and "
        "deviation of the first 12.",
        horizon=horizon,
        origins=4 * _MONTH - horizon + 1,
        published=published,
    )


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "m4-hourly": Protocol(
        title="M4 Hourly",
        told="The M4 competition's 414 hourly series, from its own origin, 48 hours ahead; season 24; the mean over "
        "series; OWA divides by the organisers' Naive2; MSIS at 95 %. Rows with nothing but a MASE are GIFT-Eval's.",
        read=sources.m4_hourly,
        data=Data(target=("value",), time="step", series="series", frequency="h", season=24),
        horizon=sources.M4_STEPS_AHEAD,
        measures=("OWA", "sMAPE", "MASE", "MSIS"),
        level=95.0,
        published=(
            Published("Doornik, the best on Hourly", (0.410, 8.913, 0.801, 6.14)),
            Published("ES-RNN, the winner of the competition", (0.440, 9.328, 0.893, 7.93)),
            Published("seasonal naive", (0.627, 13.912, 1.193, 9.05), "seasonal_naive"),
            Published("Naive2", (1.000, *M4_NAIVE2, None), "naive2"),
            Published("Theta", (1.006, 18.1, 2.46, None)),
            Published("the organisers' Keras RNN", (1.036, 14.70, 3.05, None)),
            Published("naive", (3.593, 43.003, 11.608, 71.245), "naive"),
            Published("TimesFM-2.5, not fitted on it", (None, None, 0.734, None)),
            Published("Chronos-2, not fitted on it", (None, None, 0.788, None)),
            Published("Chronos-Bolt, not fitted on it", (None, None, 0.837, None)),
            Published("AutoARIMA", (None, None, 1.03, None)),
            Published("N-BEATS", (None, None, 1.34, None)),
            Published("PatchTST", (None, None, 1.40, None)),
            Published("DLinear", (None, None, 1.69, None)),
            Published("TFT", (None, None, 2.47, None)),
            Published("DeepAR, an LSTM", (None, None, 3.53, None)),
        ),
    ),
    "us-births": Protocol(
        title="US births, daily",
        told="GIFT-Eval's us_births/D/short: the last 20 windows of 30 days that do not overlap; MASE with season 1, "
        "over all that lies before each origin.",
        read=sources.us_births,
        data=Data(target=("births",), time="ds", frequency="D", season=7),
        horizon=30,
        measures=("MASE",),
        origins=20,
        stride=30,
        mase_season=1,
        own_past=True,
        published=(
            Published("TFT", (0.315,)),
            Published("Chronos-2, not fitted on it", (0.327,)),
            Published("TimesFM-2.5, not fitted on it", (0.343,)),
            Published("PatchTST", (0.487,)),
            Published("DeepAR, an LSTM", (0.535,)),
            Published("naive", (1.8648,), "naive"),
        ),
    ),
    "etth1-24": _etth1(
        24,
        Published("repeat-last", (0.034, 0.139), "naive"),
        Published("Informer", (0.098, 0.247)),
        Published("DeepAR, an LSTM", (0.107, 0.280)),
        Published("LSTMa", (0.114, 0.272)),
    ),
    "etth1-96": _etth1(
        96,
        Published("NLinear", (0.053, 0.177)),
        Published("DLinear", (0.056, 0.180)),
        Published("FEDformer", (0.079, 0.215)),
    ),
    "temperatures": Protocol(
        title="Daily minimum temperatures of Melbourne",
        told="Every origin of the last year, 7 days ahead.",
        read=sources.temperatures,
        data=Data(target=("Temp",), time="Date"),
        horizon=7,
        measures=("MAE", "MASE"),
        origins=365,
    ),
    "co2": Protocol(
        title="Carbon dioxide on Mauna Loa, weekly",
        told="Every origin of the last four years, 52 weeks ahead.",
        read=sources.co2,
        data=Data(target=("co2",), time="date", fill_limit=18),
        horizon=52,
        measures=("MAE", "MASE"),
        origins=4 * 52 + 1 - 52,
    ),
    "lab": Protocol(
        title="The lab series of a course",
        told="One step ahead from every origin of the last 461 of 1,461 steps, t = 1000 to 1460.",
        read=sources.lab_series,
        data=Data(target=("value",), time="time", season=365),
        horizon=1,
        measures=("MAE", "MSE"),
        origins=461,
        validation_origins=200,
        published=(
            Published("an oracle that knows all but the noise", (4.007, None)),
            Published("the series without noise, one step late: what 20 steps can know", (4.260, None)),
            Published("trend and a table of the season", (4.568, None)),
            Published("seasonal difference, smoothed: the course's best", (4.605, None)),
            Published("moving average of 5", (4.889, None)),
            Published("linear autoregression of 20 steps", (4.955, None)),
            Published("convolution and LSTM, as the course reports it: 5.0 to 5.2", (5.0, None)),
            Published("RNN, as the course reports it: 5.5 to 6.9", (5.5, None)),
            Published("LSTM of one to three layers, as the course reports it: 5.65 to 6.55", (5.65, None)),
            Published("naive", (5.938, None), "naive"),
        ),
    ),
}
