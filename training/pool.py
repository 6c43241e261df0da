"""An endless pool of generated series, on which the bundled model is fitted.

Each series is a sum of parts that the series people have are made of: a level, a trend, one or two seasons of many
lengths and shapes, noise of many kinds, steps and outliers; some are then exponentiated, cut at zero, or counted. The
idea of fitting on generated series follows ForecastPFN (Dooley et al. 2023) and KernelSynth (Ansari et al. 2024).
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Block: TypeAlias = npt.NDArray[np.float64]  # (series, time)

# Lengths that clocks and calendars give, and how often each is drawn; the others are drawn log-uniformly.
_CALENDAR: Final = {4: 2, 7: 16, 12: 8, 24: 20, 48: 4, 52: 4, 96: 2, 144: 1, 168: 5, 365: 3}
_CALENDAR_SHARE: Final = 0.75
# The longer season that often comes with a shorter one.
_COMPANION: Final = {7: 365, 12: 120, 24: 168, 48: 336, 96: 672, 4: 52}
_HARMONICS: Final = 10
_TABLE: Final = 400


def generate(rng: np.random.Generator, *, series: int, length: int) -> npt.NDArray[np.float32]:
    """Generate (series, length) finite values, none of them constant over its length."""
    shape = (series, 1)
    first = _periods(rng, series)
    companion = np.array([_COMPANION.get(int(period), 0) for period in first], float)[:, None]
    second = np.where((companion > 0) & _chosen(rng, shape, 0.7), companion, _periods(rng, series)[:, None])
    main = _season(rng, first[:, None], length)
    side = _season(rng, second, length)
    clean = _chosen(rng, shape, 0.15)  # pure lines, waves and steps: what people try first
    has_main = _chosen(rng, shape, 0.8) & ~(clean & _chosen(rng, shape, 0.4))
    has_side = has_main & _chosen(rng, shape, 0.45)
    product = _chosen(rng, shape, 0.4) * rng.uniform(0.2, 1.0, shape)
    seasons = has_main * main * (1 + has_side * product * side) + has_side * rng.uniform(0, 1.2, shape) * side
    seasons *= np.where(clean, 1.0, _wander(rng, series, length))

    noise = _noise(rng, series, length) * _log_uniform(rng, 0.02, 1.5, shape)
    noise *= np.where(_chosen(rng, shape, 0.15), np.exp(0.5 * main), 1.0)  # more noise at some hours
    walk = _walk(rng, series, length) * _chosen(rng, shape, 0.45) * _log_uniform(rng, 0.05, 3.0, shape)
    values = seasons + np.where(clean, 0.0, noise + walk) + _trend(rng, series, length) + _steps(rng, series, length)

    values = _transform(rng, values)
    spread = values.std(axis=1, keepdims=True)
    outlying = ~clean & _chosen(rng, shape, 0.15) & _chosen(rng, (series, length), 0.008)
    values = values + outlying * spread * rng.standard_t(3, (series, length)) * 3
    flat = spread[:, 0] < 1e-6 * (np.abs(values).max(axis=1) + 1e-12)
    values[flat] += rng.standard_normal((int(flat.sum()), length))
    generated: npt.NDArray[np.float32] = values.astype(np.float32)
    return generated


def _chosen(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> npt.NDArray[np.bool_]:
    return rng.random(shape) < share


def _log_uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Block:
    drawn: Block = np.exp(rng.uniform(np.log(low), np.log(high), shape))
    return drawn


def _periods(rng: np.random.Generator, series: int) -> npt.NDArray[np.float64]:
    lengths, shares = np.array(list(_CALENDAR)), np.array(list(_CALENDAR.values()), float)
    calendar = rng.choice(lengths, series, p=shares / shares.sum()).astype(float)
    others = np.exp(rng.uniform(np.log(3), np.log(250), series))
    others = np.where(rng.random(series) < 0.7, others.round(), others)
    return np.where(rng.random(series) < _CALENDAR_SHARE, calendar, others)


def _season(rng: np.random.Generator, period: Block, length: int) -> Block:
    """A repeating shape of unit spread: harmonics, a smoothed random table, or a few levels (working days, shifts)."""
    series = len(period)
    time = np.arange(length) + rng.integers(0, 10_000, (series, 1))
    phase = (time % period) / period
    orders = np.arange(1, _HARMONICS + 1)
    decay = rng.uniform(0.5, 2.5, (series, 1))
    sizes = rng.standard_normal((series, _HARMONICS)) / orders**decay * (orders <= period / 2)
    sizes[:, 0] += 1e-3
    shifts = rng.uniform(0, 2 * np.pi, (series, _HARMONICS))
    harmonic = np.zeros((series, length))
    for index, order in enumerate(orders):
        harmonic += sizes[:, index, None] * np.cos(2 * np.pi * order * phase + shifts[:, index, None])

    steps = np.minimum(np.ceil(period), _TABLE).astype(int)  # (series, 1)
    table = rng.standard_normal((series, _TABLE))
    levels = rng.integers(2, 4, (series, 1))
    coarse = np.floor(rng.random((series, _TABLE)) * levels)
    smooth = rng.integers(0, 5, (series, 1))  # rounds of a circular three-step mean
    position = np.arange(_TABLE)
    after = np.where(position + 1 >= steps, 0, position + 1)
    before = np.where(position == 0, steps - 1, position - 1)
    for round_ in range(4):
        mean = (table + np.take_along_axis(table, after, 1) + np.take_along_axis(table, before, 1)) / 3
        table = np.where(round_ < smooth, mean, table)
    place = np.minimum((phase * steps).astype(int), steps - 1)
    # Few levels come in runs where the season is long: a night, a weekend.
    run = np.maximum(steps // rng.integers(3, 9, (series, 1)), 1)
    tabled = np.take_along_axis(table, place, 1)
    levelled = np.take_along_axis(coarse, place // run, 1)

    kind = rng.random((series, 1))
    shape = np.where(kind < 0.45, harmonic, np.where(kind < 0.8, tabled, levelled))
    spread = shape.std(axis=1, keepdims=True)
    season: Block = (shape - shape.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-3)
    return season


def _wander(rng: np.random.Generator, series: int, length: int) -> Block:
    """A slowly changing positive factor for the seasons' size; 1 for most series."""
    steps = rng.standard_normal((series, length)) * _log_uniform(rng, 0.002, 0.03, (series, 1))
    return np.where(_chosen(rng, (series, 1), 0.3), np.exp(np.clip(np.cumsum(steps, axis=1), -1.5, 1.5)), 1.0)


def _noise(rng: np.random.Generator, series: int, length: int) -> Block:
    """White or autoregressive noise of unit spread, normal or heavy-tailed, sometimes with calm and wild spells."""
    normal = rng.standard_normal((series, length))
    heavy = rng.standard_t(3, (series, length)) / np.sqrt(3)
    innovations = np.where(_chosen(rng, (series, 1), 0.25), np.clip(heavy, -8, 8), normal)
    spells = np.exp(np.clip(np.cumsum(rng.standard_normal((series, length)), axis=1) * 0.05, -1, 1))
    innovations = np.where(_chosen(rng, (series, 1), 0.15), innovations * spells, innovations)
    memory = np.where(_chosen(rng, (series, 1), 0.45), 0.0, 1 - _log_uniform(rng, 0.01, 1.0, (series, 1)))
    memory = np.where(_chosen(rng, (series, 1), 0.06), -rng.uniform(0, 0.6, (series, 1)), memory)
    noise: Block = _recurse(innovations, memory) * np.sqrt(1 - memory**2)
    return noise


def _recurse(innovations: Block, memory: Block) -> Block:
    """First-order autoregression of (series, time) innovations, begun in its stationary spread."""
    values = np.empty_like(innovations)
    last = innovations[:, 0] / np.sqrt(np.maximum(1 - memory[:, 0] ** 2, 1e-6))
    for step in range(innovations.shape[1]):
        if step:
            last = memory[:, 0] * last + innovations[:, step]
        values[:, step] = last
    return values


def _walk(rng: np.random.Generator, series: int, length: int) -> Block:
    """A random walk of unit spread over its length, sometimes a smooth one whose slope walks."""
    steps = rng.standard_normal((series, length))
    slopes = _recurse(steps, np.full((series, 1), 0.95))
    walk: Block = np.cumsum(np.where(_chosen(rng, (series, 1), 0.3), slopes, steps), axis=1)
    walk = (walk - walk[:, :1]) / (walk.std(axis=1, keepdims=True) + 1e-9)
    return walk


def _trend(rng: np.random.Generator, series: int, length: int) -> Block:
    """A straight, bent or levelling trend, in somewhat less than half of the series."""
    time = np.linspace(0, 1, length)
    slope = rng.standard_normal((series, 1)) * _log_uniform(rng, 0.3, 6.0, (series, 1))
    bend = rng.uniform(0.1, 0.9, (series, 1))
    bent = time + np.maximum(time - bend, 0) * rng.standard_normal((series, 1))
    levelling = (1 - np.exp(-time * rng.uniform(1, 5, (series, 1)))) / 2
    kind = rng.random((series, 1))
    shape = np.where(kind < 0.6, time + 0 * kind, np.where(kind < 0.8, bent, levelling))
    return np.where(_chosen(rng, (series, 1), 0.45), slope * shape, 0.0)


def _steps(rng: np.random.Generator, series: int, length: int) -> Block:
    """Lasting jumps of the level, in some series."""
    jumps = _chosen(rng, (series, length), 1.5 / length) * rng.standard_normal((series, length))
    return np.cumsum(jumps, axis=1) * _chosen(rng, (series, 1), 0.2) * _log_uniform(rng, 0.5, 4.0, (series, 1))


def _transform(rng: np.random.Generator, values: Block) -> Block:
    """Leave most series as they are; make growth, counts, round numbers or quantities above zero of the others."""
    series = len(values)
    centred = (values - values.mean(axis=1, keepdims=True)) / np.maximum(values.std(axis=1, keepdims=True), 1e-9)
    kind = rng.random((series, 1))
    grown = np.exp(np.clip(centred * rng.uniform(0.1, 0.9, (series, 1)), -6, 6))
    stopped = np.maximum(centred + rng.uniform(-0.3, 1.5, (series, 1)), 0)
    counted = rng.poisson(np.minimum(grown * _log_uniform(rng, 0.5, 200, (series, 1)), 1e6)).astype(float)
    rounded = np.round(centred * _log_uniform(rng, 1, 50, (series, 1)))
    return np.select([kind < 0.22, kind < 0.28, kind < 0.34, kind < 0.40], [grown, stopped, counted, rounded], centred)
