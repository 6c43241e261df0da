"""`python -m benchmarks.report`: write `docs/benchmarks.md` and its plot from what the last runs found."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks import cache
from benchmarks.observation import OFF, ON
from benchmarks.peer import ONE_STEP, SEVERAL_STEPS
from benchmarks.plot import draw, draw_overload
from benchmarks.questions import ROOT
from benchmarks.rates import ratio
from benchmarks.results import kept
from benchmarks.servers import CEILING, REFERENCE, SERVICE

DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"
PLOT: Final = ROOT / "docs" / "benchmarks.svg"
OVERLOAD_PLOT: Final = ROOT / "docs" / "overload.svg"

_CARRIED: Final = "Triton, state carried"
_BUSY: Final = "peers, busy machine"  # a run of the peers that was put aside, to be told beside a calmer one
_COUNTS: Final = ("16", "64")
_OWN: Final = (SERVICE, REFERENCE, CEILING)

_HEAD: Final = """\
# Benchmarks

How many forecasts a second one core answers, beside other model servers that serve the same file. Every server runs on
one core, with all its processes; the load generator, `wrk`, runs on another, with connections kept alive. Servers are
loaded in turns, round by round, while all others stand still, so that a machine that slows down slows all of them.
What is told is the median of {rounds} rounds of {seconds} s; a ratio is the median of the ratios within each round.
Each answer was compared with the engine's own forecast before its server was measured, to 1 part in 10,000.

The model has two LSTM layers of 32 units; a window has 30 steps. The weights are random: speed does not depend on them.
The service runs as it comes: one worker, default settings, every check of its input on.
"""

_NOTES: Final = {
    "Triton": "The server in C++ from the `nvidia-pytriton` wheel, which has the Python backend alone: onnxruntime "
    "runs inside it, on dynamic batches of up to 16. One HTTP thread and a queue delay of 0.1 ms: of those tried, the "
    "best. The backend hands every batch to another process, through shared memory, and back. Triton's own backend "
    "for onnxruntime is not in the wheel, and was not measured. Asked in JSON, with tensors as bytes beside the JSON, "
    "and with nothing but the bytes of one tensor.",
    "FastAPI": "As in tutorials: a pydantic body, `session.run`, a dict, on uvicorn with uvloop and httptools. "
    "No batches: each request is a run of its own, and `def` adds a change of threads.",
    "LitServe": "One worker process and one HTTP process, which talk through queues (`fast_queue`). With and without "
    "batches of 16, for which it waits 5 ms: of the waits tried, the best.",
    "BentoML": "One worker. Both kinds of endpoint, and adaptive batches of up to 16.",
    "MLServer": "A custom runtime without the inference pool (`parallel_workers` 0), which one core has no use for, "
    "with and without adaptive batches of 16 (waiting 1 ms at most); httptools and uvloop installed. Each request is "
    "checked against the protocol's models, and its tensors are lists in JSON.",
    "KServe": "The Python server, one worker, v1 protocol; gRPC and the logs of requests and latencies off. "
    "It has no batches of its own.",
    "Ray Serve": "One replica, throughput-optimised, with and without batches of 16. Its proxy, its controller, its "
    "replica and Ray's own processes share the core; it is made for many machines, not for one core.",
}


def main() -> None:
    peers, rates = kept("peers"), kept("rates")
    if peers is not None:
        draw(bars(peers["loads"]), PLOT)
    overload = kept("overload")
    if overload is not None:
        draw_overload(overload, OVERLOAD_PLOT)
    DOCUMENT.write_text(document(peers, rates, {name: kept(name) for name in _OTHERS}))
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")


def document(
    peers: Mapping[str, Any] | None, rates: Mapping[str, Any] | None, others: Mapping[str, Mapping[str, Any] | None]
) -> str:
    """The whole document, from what was found; what was not measured is left out."""
    first = peers or rates or {}
    parts = [_HEAD.format(rounds=first.get("rounds", "several"), seconds=first.get("seconds", "some"))]
    if peers is not None:
        parts += ["![Requests a second of each server](benchmarks.svg)\n", _beside_peers(peers), _all_forms(peers)]
    if rates is not None:
        parts.append(_beside_references(rates))
    parts += [write(found) for name, write in _OTHERS.items() if (found := others.get(name))]
    if peers is not None:
        parts.append(_about_peers(peers))
    parts.append(_about_machine({"beside other servers": peers, "beside its references": rates, **others}))
    parts.append(_REPEAT)
    return "\n".join(parts)


def bars(loads: Mapping[str, Any]) -> dict[str, list[tuple[str, float, float]]]:
    """For each load at 16 connections, the servers, their rates, and how many times as quick the service is."""
    return {
        load: [
            (name, found["rate"], ratio(by_name[SERVICE]["rates"], found["rates"]))
            for name, found in best(by_name).items()
            if name != CEILING
        ]
        for load, by_name in ((load, loads[f"uni, {load}"]["16"]) for load in (ONE_STEP, SEVERAL_STEPS))
    }


def best(by_name: Mapping[str, Any]) -> dict[str, Any]:
    """The quickest form of each server, the quickest server first; Triton's carried state is told apart."""
    found: dict[str, Any] = {}
    for name, one in sorted(by_name.items(), key=lambda item: -item[1]["rate"]):
        found.setdefault(server_of(name), one)
    return found


def server_of(contestant: str) -> str:
    """The server that a contestant is a form of."""
    server, _, form = contestant.partition(":")
    if "state carried" in form:
        return _CARRIED
    return server.split(",")[0] if contestant not in _OWN else contestant


def _beside_peers(peers: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            "## Beside other servers\n",
            "Requests a second, and in brackets how many times as many the service answers. Of each server its best",
            "configuration counts. Those who forecast 24 steps run the window again for each step, as is usual;",
            "“state carried” is the same loop as the service's own, written for Triton by hand.\n",
            _compared(peers["loads"]),
            "Of a model that cannot carry its state (bidirectional, 2 × 32) the service runs the window again, too:\n",
            _compared_sliding(peers["loads"]),
        ]
    )


def _on_a_busy_machine(peers: Mapping[str, Any]) -> str:
    """A run of the peers while others were at work on the machine's host."""
    return "\n".join(
        [
            "## Beside other servers, on a busy machine\n",
            "Rates depend on who else is at work on the machine's host, and so, though less, do ratios. This run had",
            "neighbours that made plain Python take about twice its time. What computes on vectors suffers more from",
            "them than what interprets: at one step and 16 connections a request took MLServer 1.3 times as long as",
            "above, and this service, a third of whose time is the network's arithmetic, 1.5 times. From day to day",
            "the service was 4.4 to 6.4 times as quick as MLServer there, and 1.5 to 1.7 times as quick as Triton.",
            f"({peers['rounds']} rounds of {peers['seconds']} s.)\n",
            _compared(peers["loads"]),
            _compared_sliding(peers["loads"]),
        ]
    )


def _compared(loads: Mapping[str, Any]) -> str:
    columns = [(load, count) for load in (ONE_STEP, SEVERAL_STEPS) for count in _COUNTS]
    found = {column: best(loads[f"uni, {column[0]}"][column[1]]) for column in columns}
    names = list(dict.fromkeys(name for one in found.values() for name in one if name != CEILING))
    names.sort(key=lambda name: -max(one[name]["rate"] for one in found.values() if name in one))
    rows = [[_bold(name), *(_cell(found[column], name) for column in columns)] for name in names]
    return _table(["", *(f"{load}, {count} connections" for load, count in columns)], rows)


def _compared_sliding(loads: Mapping[str, Any]) -> str:
    rows = [[load.partition(", ")[2], *_sliding(by_count)] for load, by_count in loads.items() if load[:2] == "bi"]
    heads = (f"{who}, {count} connections" for count in _COUNTS for who in (SERVICE, "Triton"))
    return _table(["", *heads], rows)


def _sliding(by_count: Mapping[str, Any]) -> list[str]:
    cells = []
    for count in _COUNTS:
        found = best(by_count[count])
        triton = max((found[name] for name in (_CARRIED, "Triton") if name in found), key=lambda one: one["rate"])
        cells += [
            _number(found[SERVICE]["rate"]),
            f"{_number(triton['rate'])} ({_times(found[SERVICE]['rates'], triton['rates'])})",
        ]
    return cells


def _cell(found: Mapping[str, Any], name: str) -> str:
    if name not in found:
        return "–"
    rate = _number(found[name]["rate"])
    return rate if name == SERVICE else f"{rate} ({_times(found[SERVICE]['rates'], found[name]['rates'])})"


def _all_forms(peers: Mapping[str, Any]) -> str:
    parts = ["## Every configuration\n"]
    for load, by_count in peers["loads"].items():
        rows = [
            [
                name,
                *(
                    text
                    for found in by_count.values()
                    for text in (
                        _number(found[name]["rate"]),
                        _times(found[SERVICE]["rates"], found[name]["rates"]) if name != SERVICE else "",
                        f"{found[name]['p50']:.2f}",
                        f"{found[name]['p99']:.2f}",
                    )
                ),
            ]
            for name in sorted(by_count["16"], key=lambda name: -by_count["16"][name]["rate"])
        ]
        heads = [
            load,
            *(text for count in by_count for text in (f"{count} conn., /s", "service ÷ it", "p50 ms", "p99 ms")),
        ]
        parts.append(_table(heads, rows))
    return "\n".join(parts)


def _beside_references(rates: Mapping[str, Any]) -> str:
    rows = []
    for load, by_count in rates["loads"].items():
        for count, found in by_count.items():
            service = found[SERVICE]["rates"]
            rows.append(
                [
                    f"{load}, {count} connections",
                    _number(found[SERVICE]["rate"]),
                    *(
                        f"{_number(found[name]['rate'])} ({ratio(service, found[name]['rates']):.2f})"
                        for name in (REFERENCE, CEILING)
                    ),
                ]
            )
    processes = [
        [
            f"{model}, {horizon} {'step' if horizon == '1' else 'steps'}",
            *(_number(one[horizon]) for one in found.values()),
        ]
        for model, found in rates["in_process"].items()
        for horizon in next(iter(found.values()))
    ]
    batches = list(next(iter(rates["in_process"].values())))
    memory = ", ".join(f"{size:.0f} MB ({model})" for model, size in rates["memory"].items())
    return "\n".join(
        [
            "## Beside its references\n",
            "Requests a second, and in brackets the service's share of them. The bare reference is an ASGI application",
            "on uvicorn that only parses, runs and answers, with the service's own scheduler and engine, and checks",
            "nothing. The other reads nothing and answers `{}`: the ceiling of this server software.\n",
            _table(["", "service", REFERENCE, CEILING.replace("{}", "`{}`")], rows),
            "onnxruntime in process, forecasts a second without any server:\n",
            _table(["", *batches], processes),
            f"The worker's resident memory after these loads: {memory}.\n",
        ]
    )


def _mixture(found: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{one['share']:.0%}",
            f"{_number(one['mix']['rate'])} / {_number(one['alone']['rate'])}",
            f"{one['mix']['p50']:.2f}",
            f"{one['alone']['p50']:.2f}",
            f"{one['mix']['p50'] / one['alone']['p50']:.1f} ×",
            f"{one['mix']['p99']:.2f}",
            f"{one['alone']['p99']:.2f}",
        ]
        for one in found["shares"]
    ]
    heads = ["of the most", "/s, mixed / alone", "p50 mixed, ms", "p50 alone, ms", "ratio", "p99 mixed", "p99 alone"]
    return "\n".join(
        [
            "## One-step requests among long ones\n",
            f"Horizons log-uniform from 1 to 96, from {found['connections']} connections that wait a random while",
            "between requests. What is told is the latency of the one-step requests among them, and where all requests",
            "are for one step, at the same rate. Without waiting, the mix is answered at",
            f"{_number(found['most'])} requests a second.\n",
            _table(heads, rows),
        ]
    )


def _bulk(found: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            "## A thousand windows in one request\n",
            _table(
                ["", ""],
                [
                    [
                        "request",
                        f"{found['windows']} windows × {found['horizon']} steps",
                    ],
                    ["onnxruntime in process, the best of batches of 16, 64 and 256", _number(found["in_process"])],
                    [
                        f"as JSON ({found['body_bytes']:,} bytes), forecasts a second, one such request at a time",
                        f"{_number(found['forecasts_per_second'])} ({found['ratio']:.2f} of it)",
                    ],
                    [
                        f"as an Arrow stream ({found['binary_bytes']:,} bytes)",
                        f"{_number(found['binary_forecasts_per_second'])} ({found['binary_ratio']:.2f} of it)",
                    ],
                    ["rise of the worker's memory at the first, MB", f"{found['memory_rise']:.1f}"],
                    ["at a later one, MB", f"{found['memory_rise_again']:.1f}"],
                    [
                        f"one-step requests beside it ({_number(found['rate_beside'])} /s): p50, p99, ms",
                        f"{found['p50_beside']:.1f}, {found['p99_beside']:.1f}",
                    ],
                    ["p99 of the same without it, ms", f"{found['p99_alone']:.1f}"],
                ],
            ),
        ]
    )


def _workers(found: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            _number(one["one"]),
            _number(one["two"]),
            f"{one['ratio']:.2f} ×",
            f"{one['cores_left_for_two']:.2f}",
            f"{one['ratio_per_core_left']:.2f}",
        ]
        for name, one in found["loads"].items()
    ]
    limit = (
        "The generator had a core of its own."
        if found["spare_core"]
        else "This machine has two cores, so that the generator took its time from the two workers; one worker had a\n"
        "core of its own. The last column is the ratio for each core's worth of time that was left for the workers."
    )
    if "gain_of_runs" in found:
        limit += (
            f"\nThe model alone, run on both cores at once without any server, ran "
            f"{found['gain_of_runs']:.2f} times as often as on one."
        )
    limit += f"\nEach worker had {found['connections']} connections. These are the medians of {found['rounds']} rounds."
    heads = ["", "one worker, /s", "two, /s", "ratio", "cores left for two", "ratio ÷ cores left"]
    return "\n".join(["## Two workers\n", limit + "\n", _table(heads, rows)])


def _observation(found: Mapping[str, Any]) -> str:
    """The table of what watching costs."""
    rows = [
        [
            f"{steps} {'step' if steps == '1' else 'steps'}, {connections} connections",
            _number(about[ON]["rate"]),
            _number(about[OFF]["rate"]),
            f"{about['ratio']:.2f} ×",
        ]
        for steps, by_connections in found["loads"].items()
        for connections, about in by_connections.items()
    ]
    words = (
        f"Metrics, JSON logs with {found['share_logged']:.1%} of the requests in them, and a key with each request, "
        "beside a service\nwithout any of that.\n"
    )
    return "\n".join(["## What watching costs\n", words, _table(["", "everything on, /s", "off, /s", "ratio"], rows)])


def _cache(found: Mapping[str, Any]) -> str:
    """The table of what keeping answers costs and saves."""
    rows = [
        [name, _number(one["rate"]), f"{one['ratio']:.2f} ×", _milliseconds(one), _share(one.get("found"))]
        for name, one in found["services"].items()
    ]
    words = (
        f"Forecasts of {found['steps']} steps from {found['windows']:,} windows in random order, over "
        f"{cache.CONNECTIONS} connections: of a service that keeps\nno answers, of one that has room for a few, "
        "and of one that has room for all (`LEADTIME_CACHE_BYTES`).\n"
    )
    heads = ["answers", "requests a second", "ratio", "p50 and p99, ms", "found"]
    return "\n".join(["## What keeping answers saves\n", words, _table(heads, rows)])


def _milliseconds(one: Mapping[str, Any]) -> str:
    return f"{one['p50']:.2f}, {one['p99']:.2f}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _start(found: Mapping[str, Any]) -> str:
    return (
        "## Start\n\n"
        f"From the start of the process to the first forecast: {found['median']:.2f} s, the median of {found['starts']}"
        f" starts on one core; at most {found['most']:.2f} s.\n"
    )


def _memory(found: Mapping[str, Any]) -> str:
    slope = found["bytes_per_thousand"]
    line = (
        ""
        if slope is None
        else f" Over the second half, the line\nthrough the points rises by {slope:,.0f} ± "
        f"{found['standard_error']:,.0f} bytes for each thousand requests."
    )
    return (
        "## Memory over time\n\n"
        f"{found['requests']:,} requests of mixed shapes (1–8 windows of 8–59 steps, horizons 1–96): "
        f"{found['megabytes'][0]:.1f} MB at the start,\n{_middle(found['megabytes']):.1f} MB in the middle, "
        f"{found['megabytes'][-1]:.1f} MB at the end.{line}\n"
    )


def _middle(values: Sequence[float]) -> float:
    return values[len(values) // 2]


def _about_peers(peers: Mapping[str, Any]) -> str:
    rows = []
    for name, note in _NOTES.items():
        named = {peer: versions for peer, versions in peers["versions"].items() if peer.split(",")[0] == name}
        libraries = ", ".join(f"{library} {number}" for library, number in next(iter(named.values()), {}).items())
        idle = max((share for peer, share in peers["idle"].items() if peer.split(",")[0] == name), default=None)
        rows.append([name, note, libraries, "–" if idle is None else f"{idle:.1%}"])
    parts = [
        "## The other servers\n",
        "Each has an environment of its own, from `benchmarks/peers/<name>/requirements.txt`, and runs the same file",
        "with onnxruntime on one thread that does not spin. The last column is the share of a core that it takes when",
        "nobody asks it anything. Servers are stopped while others are measured, but for Triton, which does not bear",
        "it and is quiet by itself.\n",
        _table(["", "configuration, and what limits it", "versions", "idle"], rows, "---"),
    ]
    parts += [f"{name} could not be measured: {fault}\n" for name, fault in peers["failed"].items()]
    parts += [
        f"{name} died {count} {'time' if count == 1 else 'times'} and was started anew.\n"
        for name, count in peers["restarts"].items()
    ]
    return "\n".join(parts)


def _about_machine(measured: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Where, when and of which version each part was measured: they need not have been measured together."""
    rows = []
    for what, found in measured.items():
        if found:
            machine = found["machine"]
            libraries = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items())
            rows.append(
                [
                    what,
                    found["date"],
                    f"{machine['processor']}, {machine['cores']} cores",
                    machine["kernel"],
                    f"Python {machine['python']}, {libraries}; {machine['wrk'].split(' Copyright')[0]}",
                    machine["commit"],
                ]
            )
    return "\n".join(
        ["## Machine\n", _table(["measured", "when", "processor", "kernel", "versions", "commit"], rows, "---")]
    )


def _training_speed(found: Mapping[str, Any]) -> str:
    rows = []
    for name, kind in (("by the clock", "clock"), ("by processor time", "processor")):
        ours, theirs = found[kind]["leadtime"], found[kind]["keras"]
        rows.append([name, _number(_middle(sorted(ours))), _number(_middle(sorted(theirs))), _times(ours, theirs)])
    machine = found["machine"]
    return "\n".join(
        [
            "## Training\n",
            "Windows a second that an LSTM of 2 × 32 units is fitted on, windows of 20 in batches of 32: by",
            "`python -m training fit`, with its validation and its checkpoint of each epoch, and by Keras's `fit` over",
            "the window data set of courses (`window`, `flat_map`, `shuffle`, `map`, `batch`, `prefetch`), without.",
            f"The medians of {len(found['clock']['keras'])} rounds in turns, {found['epochs']} epochs of"
            f" {found['windows']:,} windows each, the first two left out.",
            f"TensorFlow {found['tensorflow']}, {machine['processor']}, {machine['cores']} cores, {found['date']},"
            f" load before {machine['load_before']:.1f}.\n",
            _table(["", "Leadtime", "Keras", "ratio"], rows),
            "`python -m benchmarks.training_speed` in `.venv` measures it again.\n",
        ]
    )


def _panel(found: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{panel['series']:,}",
            _number(panel["rows"]),
            f"{panel['bytes'] / 1e6:,.0f} MB",
            f"{panel['megabytes']:,.0f} MB",
            f"{panel['seconds']:,.0f} s",
        ]
        for panel in found["panels"]
    ]
    return "\n".join(
        [
            "## Large panels\n",
            "What `python -m training fit` takes of memory at most, over panels of series of",
            f"{found['length']:,} steps in long form, as CSV: they are read, fitted on for an epoch of 50 batches, and",
            "scored in a backtest.",
            f"{found['machine']['processor']}, {found['machine']['cores']} cores, {found['date']}.\n",
            _table(["series", "rows", "file", "memory at most", "time"], rows),
            "`python -m benchmarks.panel` in `.venv` measures it again.\n",
        ]
    )


_REPEAT: Final = """\
## Repeat

`make bench` measures the service beside its references, and `make bench-peers` beside the other servers; both write
this document anew. They need `wrk`. Parts: `python -m benchmarks` with `rates`, `stages`, `mixture`, `bulk`,
`workers`, `cache`, `start`, `memory`, `overload` or `peers`, in `.venv-service`; `--help` lists the rest. The
environments of the other servers are kept under `.cache/bench`, and what was found in `benchmarks/results`.
"""


_NOT_OURS: Final = ("sockets", "json", "validation", "arrays", "runtime", "response")


def _stages(found: Mapping[str, Any]) -> str:
    after = found["after"]
    names = {
        "sockets": "sockets: the kernel's side, and the loop's",
        "http": "HTTP in and out, and the server's bookkeeping",
        "framework": "routing and middleware (before), and what no other line is told of: objects, tasks, cold caches",
        "json": "JSON into numbers",
        "validation": "validation",
        "arrays": "numbers into arrays",
        "scheduling": "scheduling",
        "runtime": "onnxruntime, a run of sixteen rows, shared",
        "response": "the answer as JSON",
        "total": "all of it (before: without sockets)",
    }
    rows = [
        [text, *(f"{found[when][stage]:.1f}" if stage in found[when] else "–" for when in ("before", "after"))]
        for stage, text in names.items()
    ]
    return "\n".join(
        [
            "## Where the microseconds of a request go\n",
            "CPU time of a one-step request, 16 connections: before, through FastAPI and uvicorn as they are, and",
            "after, on the short way around both ([why](decisions/0008-the-short-way.md)). Each stage is measured by",
            "itself, in one process without sockets; what those cost is the rest of a request's time on a core that is",
            "busy all the time.\n",
            _table(["µs", "before", "after"], rows),
            f"Of these, {sum(after.get(stage, 0.0) for stage in _NOT_OURS):.0f} µs are the work of the kernel, "
            "onnxruntime, pydantic, numpy and orjson. What brought it here: no task,",
            "future or coroutine for a plain request, heads that are read once, and nothing that is left to the",
            "collector of cycles. What is left to be gained is in the graph, whose seventy small nodes beside the two",
            "LSTMs take a share of each run, and in the interpreter: compiled by mypyc the scheduler takes half of its",
            "time, and a request 9 to 17 % less. That would ask a compiler of everybody who installs the service, and",
            "was not kept.\n",
        ]
    )


def _overload(found: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{_bold(name)}, {one['capacity']:,.0f} /s",
            f"{point['times']:g} ×",
            _number(point["goodput"]),
            f"{point['share']:.2f}",
            *(_number(point[rate]) for rate in ("refused", "expired")),
            _number(point["failed"] + point["unanswered"]),
            *(_ms(point[time]) for time in ("accepted_p50", "accepted_p99", "refused_p50", "refused_p99")),
        ]
        for name, one in found["servers"].items()
        for point in one["points"]
    ]
    kept_up = {name: _goodput_kept(one["points"]) for name, one in found["servers"].items()}
    return "\n".join(
        [
            "## Overload\n",
            "![Goodput and times of accepted requests under overload](overload.svg)\n",
            f"What becomes of requests for {found['steps']} steps of a model that slides its window, when more are",
            f"sent than can be answered. Each server is asked by {found['connections']} connections as fast as it",
            "answers, its capacity,",
            f"and then offered a multiple of that, open loop, for {found['seconds']} s: requests leave at random times",
            "that do not depend on answers, times count from then, and clients give up after four deadlines. The",
            "capacity is found anew before each load, since it changes with what else the machine does; medians of",
            f"{found['rounds']} rounds, the servers in turn, and the shares of all rounds as a band in the plot. An",
            f"answer is worth something within {found['deadline'] * 1000:.0f} ms, which the request says",
            "(`X-Request-Timeout-Ms`); goodput is the rate of those. The service refuses what would be late, with 503",
            "and `Retry-After` ([how](decisions/0021-refused-before-late.md)). FastAPI: the tutorial's `async def`. It",
            "refuses nobody: those whom it does not come to hear nothing until they give up (*lost*).\n",
            "A refusal takes some tens of microseconds of the core, half of them the kernel's, and so multiples of",
            "what can be answered take the more of it the less a forecast takes: of 24 steps, 1.1 ms each, goodput at",
            "5 × was 0.85 of its peak.\n",
            _table(
                [
                    *(
                        "server, capacity",
                        "offered",
                        "goodput, /s",
                        "of the capacity",
                        "refused, /s",
                        "504, /s",
                        "lost, /s",
                    ),
                    *("answers p50, ms", "p99", "refusals p50, ms", "p99"),
                ],
                rows,
            ),
            f"Goodput at {found['servers'][SERVICE]['points'][-1]['times']:g} × the capacity, of its peak, both as "
            "shares of the capacity: " + ", ".join(f"{name} {share:.2f}" for name, share in kept_up.items()) + ".\n",
            *([found["note"] + "\n"] if "note" in found else []),
        ]
    )


def _networks(found: Mapping[str, Any]) -> str:
    cells = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "peephole_lstm": "LSTM with peepholes"}
    costs = {
        (one["bidirectional"], one["layers"], one["output"], one["cell"], horizon): one[horizon]
        for one in found["networks"]
        for horizon in ("1", "24")
    }
    rows = []
    for both, layers, output in dict.fromkeys(key[:3] for key in costs):
        shape = [("both directions" if both else "forward"), str(layers), output]
        rows.append(
            shape + [f"{costs[both, layers, output, cell, horizon]:.1f}" for horizon in ("1", "24") for cell in cells]
        )
    worst = {
        cell: max(cost / costs[*key[:3], "lstm", key[4]] for key, cost in costs.items() if key[3] == cell)
        for cell in ("gru", "rnn")
    }
    heads = ["direction", "layers", "output"]
    heads += [f"{name}, {steps}" for steps in ("1 step", "24") for name in cells.values()]
    loops = sum(one["loops"] for one in found["networks"])
    return "\n".join(
        [
            "## Every network\n",
            f"Microseconds of a forecast in process, without any server: layers of {found['units']} units,",
            f"{found['batch']} windows of {found['window']} steps together, one step and 24 steps ahead. Each graph",
            "computes what Keras computes, to 1 part in 10,000, or its export would have failed;",
            f"{loops or 'none'} of the {len(found['networks'])} holds a loop. A GRU takes at most {worst['gru']:.2f} ×",
            f"the time of an LSTM of the same shape, a simple RNN {worst['rnn']:.2f} ×.\n",
            _table(heads, rows),
            "`python -m benchmarks.networks` in `.venv` measures it again.\n",
        ]
    )


def _goodput_kept(points: Sequence[Mapping[str, Any]]) -> float:
    peak = max(point["share"] for point in points)
    return float(points[-1]["share"] / peak) if peak else 0.0


def _ms(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{milliseconds:,.1f}"


_OTHERS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    _BUSY: _on_a_busy_machine,
    "stages": _stages,
    "mixture": _mixture,
    "bulk": _bulk,
    "workers": _workers,
    "observation": _observation,
    "cache": _cache,
    "start": _start,
    "memory": _memory,
    "overload": _overload,
    "networks": _networks,
    "training speed": _training_speed,
    "panel": _panel,
}


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], align: str = "---:") -> str:
    lines = [heads, ["---", *[align for _ in heads[1:]]], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _bold(name: str) -> str:
    return f"**{name}**" if name == SERVICE else name


def _number(rate: float) -> str:
    return f"{rate:,.0f}"


def _times(rates: Sequence[float], of: Sequence[float]) -> str:
    return f"{ratio(rates, of):.2f} ×"


if __name__ == "__main__":
    main()
