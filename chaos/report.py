"""`python -m chaos.report`: write `docs/chaos.md` from what the last runs found."""

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.questions import ROOT
from chaos.checks import checks_in
from chaos.kinds import KINDS
from chaos.results import kept

DOCUMENT: Final = ROOT / "docs" / "chaos.md"

_HEAD: Final = """\
# What happens when things go wrong

Things are broken on purpose while the service is asked, and every answer is looked at: its status, the version that
it names, and its numbers beside those that the version forecasts. `make chaos` does all of it anew on any machine, in
minutes, and writes this document (half an hour of mixed load: `CHAOS_ARGS='soak --minutes 30'`); a short form of each
is among the tests.
"""

_TOLD: Final = {
    "reloads": """\
At {rate:,} requests a second {reloads} versions of a model were put there, each as soon as the one before was served
or refused; every fourth was bad: {refused}. {requests:,} requests, p50 {p50:.1f} ms, p99 {p99:.1f} ms.""",
    "restarts": """\
Two services stand behind a small balancer, which looks at `/health/ready` every 50 ms, goes elsewhere when a service is
not ready, and never sends a request twice. At {rate:,} requests a second one service or the other was told to stop
(SIGTERM) and started anew, {restarts} times in all. {requests:,} requests, p50 {p50:.1f} ms, p99
{p99:.1f} ms.""",
    "kill": """\
A service with {workers} workers is asked {rate:,} times a second; {kills} times one of them is ended by `kill -9`.
Which connection led to which worker was read from the kernel before. {requests:,} requests, p50 {p50:.1f} ms, p99
{p99:.1f} ms.""",
    "clients": """\
One worker. A polite client asks {rate:.0f} times a second over 8 connections all the time, while bad ones of each kind
come and go, {rounds} turns of {seconds:g} s each with as much quiet between. What is compared is how long the polite
client waits with and without them. Memory and descriptors are those after they have gone, beside those before.""",
    "fuzz": """\
Sound requests of all kinds, in JSON and as Arrow streams, with bytes flipped, cut, repeated and overwritten, parts of
documents replaced and nested, headers, lengths and chunks spoilt; sound model files with bytes, protobuf fields and
metadata changed; tables with bytes and cells changed. All of it is drawn from the seed {seed}.""",
    "soak": """\
{minutes:g} minutes at {rate:.0f} requests a second, of every kind, two in five of which are to be refused, with a new
version of the model every few seconds ({reloads} in all). Memory was looked at every second; the first quarter, in
which caches fill, is left out, and the line goes through the means of blocks. {requests:,} requests, p50 {p50:.1f} ms,
p99 {p99:.1f} ms.""",
}

_FOUND: Final = """\
## Found and mended

- Requests by wire: one that offers another protocol (`Upgrade: h2c`, as Java's client does by default) lost its body,
  and was answered that it is empty. It is read without the offer.
- Requests by wire: a client that hung up with several requests on their way left a traceback in the log, and the first
  of them was worked on to its end. Every request of the connection is told.
- Mixed load for half an hour: 13 of 900,535 requests, just behind reloads on a machine that had no time, were refused
  as late: the first runs of a new version had said that a row takes long. Nobody is refused by a model's first 64 runs.
- Bad clients: half a million numbers in one request, twice a second, made the 99th percentile of a polite client 12.9
  times as long, for nobody is served while they are read. A process beside the worker reads them.
- Bad clients: connections that are left fifty at a time were closed in one turn of the loop, and made it 2.7 times as
  long. Two are closed in each turn.
- Bad clients: on a machine of a third of the speed, four that send a hundred requests in one go made a polite client's
  median 2.7 times as long. A request that waits behind another lets those of others pass.
- By reading: headers behind a chunked body were kept without end, and so was what came behind a slow request; a head
  of five thousand keys took 60 ms of everybody's time; who began no handshake of TLS held a connection for a minute;
  where the disk was full, what was to be counted anew went unanswered; where no process could be had for a worker
  that had died, its place stayed empty; a horizon of 400 digits with levels was answered 500. All of it is bounded or
  refused now, and three are among the bad clients.
- Bad clients: heads of four thousand headers made the 99th percentile of a polite client 4.5 times as long, and as many
  behind a body 20.6 times. A request may have 128.
- Bad clients: for each of thousands of requests a second that were no HTTP a line was logged, which made the 99th
  percentile of a polite client up to 6 times as long. A line is logged once a second at most; each is counted.
- Bad clients: two bodies of 8 MB that came as fast as they could made it 2.3 to 7 times as long. Large bodies are read
  with short rests.
- Artifacts: a file whose metadata are no UTF-8 was refused with the name of a Python error in the place of a reason.
"""


def main() -> None:
    DOCUMENT.write_text(document({kind: found for kind in KINDS if (found := kept(kind))}), encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")


def document(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole document, from what was found by kind; a kind that was not run is left out."""
    runs = [_about(found)] if found else []
    return "\n".join([_HEAD, *(_section(kind, held) for kind, held in found.items()), _FOUND, *runs])


def _section(kind: str, found: Mapping[str, Any]) -> str:
    about = {**found, **found.get("latency", {})}
    if "refused" in about:
        about["refused"] = ", ".join(about["refused"])
    lines = [
        f"## {KINDS[kind].TITLE}",
        "",
        _TOLD[kind].format(**about),
        *(["", found["note"]] if "note" in found else []),
        "",
        "| | found | promised |",
        "| --- | ---: | ---: |",
    ]
    lines += [
        f"| {check.what} | {check.found if check.holds else f'**{check.found}**'} | {check.promised} |"
        for check in checks_in(found)
    ]
    return "\n".join([*lines, ""])


def _about(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["## Runs", "", "| kind | when | took | where, with which version |", "| --- | --- | ---: | --- |"]
    for kind, held in found.items():
        machine = held["machine"]
        where = f"{machine['processor']}, {machine['cores']} cores, {machine['commit']}"
        lines.append(f"| {kind} | {held['date']} | {held['took_seconds']:.0f} s | {where} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
