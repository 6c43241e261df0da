"""Examples of the OpenAPI document.

Every request here can be sent as it stands, to any univariate default model whose file holds errors; that with a future
to a model of the name in it.
"""

from typing import Any, Final

_TEMPERATURES: Final = [20.7, 17.9, 18.8, 14.6, 15.8, 15.8, 15.8, 17.4, 21.8, 20.0, 16.2, 13.3, 16.7, 21.5]
_SALES: Final = [112.0, 118.0, 132.0, 129.0, 121.0, 135.0, 148.0, 148.0, 136.0, 119.0, 104.0, 118.0]

Examples = dict[str, dict[str, Any]]

REQUESTS: Final[dict[str, Examples]] = {
    "forecast": {
        "one window": {"summary": "The next value of one series", "value": {"window": _TEMPERATURES}},
        "several windows": {
            "summary": "The next value of two series",
            "value": {"windows": [_TEMPERATURES, _SALES], "model": "default"},
        },
        "timestamps": {
            "summary": "The next month, with its timestamp",
            "value": {"window": _SALES, "origin": "2024-01-31", "frequency": "M"},
        },
        "intervals": {
            "summary": "The next value, and where it lies four times out of five",
            "value": {"window": _SALES, "levels": [80]},
        },
    },
    "multi-step": {
        "one window": {
            "summary": "The next three values of one series",
            "value": {"window": _TEMPERATURES, "horizon": 3},
        },
        "timestamps": {
            "summary": "The next days at noon in Berlin, where the clock changes on 31 March 2024",
            "value": {
                "window": _TEMPERATURES,
                "horizon": 3,
                "origin": "2024-03-30T12:00:00+01:00[Europe/Berlin]",
                "frequency": "D",
            },
        },
        "several windows": {
            "summary": "Two series that end on different days",
            "value": {
                "windows": [_TEMPERATURES, _SALES],
                "horizon": 2,
                "origin": ["2024-03-30", "2024-12-31"],
                "frequency": "D",
            },
        },
        "future": {
            "summary": "The next three sales of a model that is told prices and promotions",
            "value": {
                "model": "sales",
                "window": [[112.0, 9.5, 0], [118.0, 9.5, 0], [171.0, 7.9, 1], [129.0, 9.5, 0]],
                "horizon": 3,
                "future": [[9.5, 0], [7.9, 1], [9.5, 0]],
            },
        },
        "intervals": {
            "summary": "The next three values, and where they lie half of the time and four times out of five",
            "value": {"window": _SALES, "horizon": 3, "levels": [50, 80]},
        },
    },
}

ANSWERS: Final[dict[str, Examples]] = {
    "forecast": {
        "one window": {
            "summary": "The next value of one series",
            "value": {"model": "default", "version": "1", "horizon": 1, "forecasts": [{"values": [20.1]}]},
        },
        "timestamps": {
            "summary": "The next month, with its timestamp",
            "value": {
                "model": "default",
                "version": "1",
                "horizon": 1,
                "forecasts": [{"values": [122.6], "timestamps": ["2024-02-29"]}],
            },
        },
        "intervals": {
            "summary": "The next value, and where it lies four times out of five",
            "value": {
                "model": "default",
                "version": "1",
                "horizon": 1,
                "forecasts": [
                    {
                        "values": [122.6],
                        "intervals": [
                            {"level": 80, "lower": [109.2], "upper": [131.8], "basis": "artifact", "errors": 200}
                        ],
                    }
                ],
            },
        },
    },
    "multi-step": {
        "timestamps": {
            "summary": "The next days at noon in Berlin",
            "value": {
                "model": "default",
                "version": "1",
                "horizon": 3,
                "forecasts": [
                    {
                        "values": [20.1, 18.4, 17.6],
                        "timestamps": [
                            "2024-03-31T12:00:00+02:00[Europe/Berlin]",
                            "2024-04-01T12:00:00+02:00[Europe/Berlin]",
                            "2024-04-02T12:00:00+02:00[Europe/Berlin]",
                        ],
                    }
                ],
            },
        },
        "intervals": {
            "summary": "The next three values with an interval, and two futures drawn",
            "value": {
                "model": "default",
                "version": "1",
                "horizon": 3,
                "forecasts": [
                    {
                        "values": [122.6, 127.0, 138.9],
                        "intervals": [
                            {
                                "level": 80,
                                "lower": [109.2, 111.3, 119.7],
                                "upper": [131.8, 141.2, 157.4],
                                "basis": "window",
                                "errors": 200,
                            }
                        ],
                        "samples": [[118.4, 129.1, 143.3], [124.0, 120.6, 131.2]],
                        "samples_from": {"basis": "window", "errors": 200},
                    }
                ],
            },
        },
    },
}
