"""The generated example series: the course's numbers, and a panel that one seed makes again."""

import numpy as np

from training.config import Config, Data
from training.data import read_panel
from training.parts import split
from training.synthetic import lab, panel, shop
from training.table import Table


def test_the_lab_series_has_the_numbers_of_the_course() -> None:
    frame = lab()
    assert list(frame.columns) == ["time", "value"]
    assert len(frame) == 1461
    assert (str(frame["time"].iloc[0].date()), str(frame["time"].iloc[-1].date())) == ("2001-01-01", "2004-12-31")
    # The figures that the course's own script prints for its lab series and its validation part.
    value = frame["value"].to_numpy()
    naive = np.mean(np.abs(value[1000:] - value[999:-1]))
    assert round(float(naive), 3) == 5.938
    padded = np.concatenate([[0.0], np.cumsum(value)])
    moving_average = ((padded[5:] - padded[:-5]) / 5)[:-1]
    assert round(float(np.mean(np.abs(value[1000:] - moving_average[995:]))), 3) == 4.889


def test_one_seed_makes_one_panel() -> None:
    assert panel(3).equals(panel(3))
    assert not panel(3).equals(panel(4))


def test_the_panel_can_be_fitted_on_as_it_is() -> None:
    config = Config(data=Data(target=("demand",), series="site"))
    made = read_panel(Table(panel(), "panel", "row"), config)
    assert (len(made.series), made.frequency, made.season) == (12, "h", 24)
    assert len(split(made, config).boundaries) == 12


def test_the_shops_promotions_sell_more_in_every_month() -> None:
    frame = shop()
    assert list(frame.columns) == ["day", "sales", "price", "promotion"]
    assert (len(frame), str(frame.day.iloc[-1].date())) == (1096, "2024-12-31")
    sold = frame.groupby([frame.day.dt.month, "promotion"]).sales.mean().unstack()
    assert (sold[1] > 1.2 * sold[0]).all()
    assert shop(3).equals(shop(3))
    assert not shop(3).equals(shop(4))
