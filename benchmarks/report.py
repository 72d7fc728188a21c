"""Create the table of goals, the tables of all figures and the plot from the results."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Row = dict[str, Any]
_KIB, _KB, _MB = 1024, 1e3, 1e6
AIRFLOW_KINDS = ("deferrable", "start_from_trigger", "start_from_trigger, end_from_trigger", "peer")
_OWN_WAY, _ITERATOR, _NEWEST = "hook.list_image_versions", "hook.iter_image_versions", "newest CREATED (limit=1)"


# --- Goals -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """
    A figure that must not be higher than its limit.

    :param what: What is measured.
    :param limit: The goal.
    :param unit: Unit of the figures.
    :param figure: The figure of this package; ``None`` if it was not measured.
    :param peer: The peer's figure.
    :param note: Note about the figures.
    """

    what: str
    limit: float
    unit: str
    figure: float | None = None
    peer: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met, to two decimals."""
        return None if self.figure is None else round(self.figure, 2) <= self.limit

    def cells(self) -> list[str]:
        """Return the line for the table."""
        shown = ["" if value is None else f"{_show(value)} {self.unit}" for value in (self.figure, self.peer)]
        met = {True: "yes", False: "**no**", None: "not measured"}[self.met]
        return [self.what, f"<= {_show(self.limit)} {self.unit}", *shown, met, self.note]


def _show(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004  # digits


def _find(results: Row, part: str, **which: Any) -> list[Row]:
    return [row for row in results.get(part, []) if all(row.get(key) == value for key, value in which.items())]


def _median(results: Row, part: str, figure: str, **which: Any) -> float | None:
    found = [row[figure] for row in _find(results, part, **which)]
    return median(found) if found else None


def goals(results: Row) -> list[Goal]:
    """Compare the figures with the goals."""
    return [*_wait_goals(results), *_airflow_goals(results), *_listing_goals(results)]


def _wait_goals(results: Row) -> list[Goal]:
    peer = max(_find(results, "waits", kind="peer", images=1), key=lambda run: run["waits"], default=None)
    own = next(iter(_find(results, "waits", kind="ours", waits=1_000, images=1)), None)
    many = next(iter(_find(results, "waits", kind="ours", waits=5_000, images=50)), None)
    of_peer = f"peer: {peer['waits']:,} waits" if peer else ""

    def compare(what: str, limit: float, unit: str, figure: Callable[[Row], float]) -> Goal:
        ours, theirs = (None if run is None else figure(run) for run in (own, peer))
        return Goal(what, limit, unit, ours, theirs, of_peer)

    start = "event loop blocked, longest, while the client opens and 1,000 waits start"
    what = "5,000 waits on 50 images, interval 60 s"
    late, late_peer = (
        [run["created_to_event_max"] - run["interval"] for run in _find(results, "waits", kind=kind)]
        for kind in ("ours", "peer")
    )
    return [
        compare("calls per interval, 1,000 waits on one image", 1, "calls", lambda run: run["calls_per_interval"]),
        _goal_of_memory(results),
        compare(start, 0.1, "s", lambda run: run["loop_at_start"]["longest"]),
        compare(
            "the same but for Python's garbage collections, which scan all of Airflow",
            0.1,
            "s",
            lambda run: run["loop_at_start"]["longest_without_collections"],
        ),
        compare("first answer to the last of 1,000 waits", 1.5, "s", lambda run: run["first_answer_of_last_wait"]),
        Goal(what, 1, "calls/s", many and many["calls_per_second"]),
        Goal(what, 5, "% of a core", many and many["cpu_percent_of_a_core"]),
        Goal(
            "CREATED to event beyond the interval, the last waiter of any run",
            0.2,
            "s",
            max(late, default=None),
            max(late_peer, default=None),
        ),
    ]


def _goal_of_memory(results: Row) -> Goal:
    of = {kind: _median(results, "wait_memory", "bytes_per_wait", what="rss", kind=kind) for kind in _KINDS}
    base = of["empty"] or 0
    ours, peer = (None if of[kind] is None else (of[kind] - base) / _KIB for kind in ("ours", "peer"))
    return Goal("memory per additional wait on a known image besides Airflow's own trigger", 4, "KiB", ours, peer)


def _airflow_goals(results: Row) -> list[Goal]:
    runs = {row["kind"]: row for row in _find(results, "airflow", supported=True)}
    peer = runs.get("peer")
    lines: list[Goal] = []
    for kind in AIRFLOW_KINDS[1:3]:
        ours = runs.get(kind)
        for part, who in (("lone", "one sensor"), ("burst", "many")):
            what = f"in a real Airflow: CREATED to task success beyond the wait for a poll, {who}, with {kind}"
            goal = Goal(f"{what}, to the peer's", 0.5, "x")
            if ours and peer:
                seconds, whole = (
                    [run[f"{part}_{figure}"] for run in (ours, peer)]
                    for figure in ("answer_to_success", "created_to_success")
                )
                note = f"{seconds[0]:.2f} s to {seconds[1]:.2f} s; with that wait {whole[0]:.2f} s to {whole[1]:.2f} s"
                goal = replace(goal, figure=seconds[0] / seconds[1], peer=1, note=note)
            lines.append(goal)
    for kind, limit in zip(AIRFLOW_KINDS[1:3], (1, 0), strict=True):
        processes = [run and run["processes_per_wait"] for run in (runs.get(kind), peer)]
        lines.append(
            Goal(f"in a real Airflow: processes for tasks per wait, with {kind}", limit, "processes", *processes)
        )
    return lines


def _listing_goals(results: Row) -> list[Goal]:
    own = _find(results, "listing", way=_OWN_WAY)
    versions = own[0]["versions"]
    what = f"listing {versions:,} versions"
    lines = [Goal(f"{what}: calls", versions / 100, "calls", own[0]["calls"])]
    for way, limit in (("botocore's paginator, 100 a page", 0.6), ("botocore's paginator, its default page", 0.15)):
        peers = _find(results, "listing", way=way)
        ratio = median(ours["wall_seconds"] / peer["wall_seconds"] for ours, peer in zip(own, peers, strict=True))
        seconds = " to ".join(f"{median(row['wall_seconds'] for row in rows):.2f} s" for rows in (own, peers))
        lines.append(Goal(f"{what}: time, to {way}", limit, "x", ratio, 1, seconds))
    peaks = {row["versions"]: row["peak_bytes"] for row in _find(results, "listing_memory", way=_ITERATOR)}
    growth = peaks[max(peaks)] / peaks[min(peaks)]
    seen = ", ".join(f"{peak / _MB:.2f} MB at {number:,}" for number, peak in sorted(peaks.items()))
    imports = _median(results, "imports", "package_seconds")
    airflow = _median(results, "imports", "airflow_seconds")
    return [
        *lines,
        Goal("newest CREATED version: calls", 1, "calls", _median(results, "listing", "calls", way=_NEWEST)),
        Goal("iterating over a hundred times as many: peak memory", 1.5, "x", growth, note=seen),
        Goal(
            "import of all modules after Airflow and its Amazon provider",
            100,
            "ms",
            imports and imports * 1e3,
            note=f"these two: {airflow:.1f} s",
        ),
    ]


# --- Markdown --------------------------------------------------------------------------------------------

_KINDS = ("empty", "empty, logs a line", "ours", "peer")


def _table(rows: Iterable[dict[str, str]]) -> str:
    rows = list(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def markdown(results: Row) -> str:
    """Return the report."""
    environment = results["environment"]
    loads = [row["load_average"] for part in results.values() if isinstance(part, list) for row in part]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    head = ("figure", "goal", "ours", "peer", "met", "note")
    return f"""\
# Benchmark results

Python {environment["python"]} on {environment["system"]}, {environment["cores"]} cores; {packages}.
Size: {environment["size"]}. Load average before each measurement: {min(loads):.1f} to {max(loads):.1f}.

## Goals

{_table(dict(zip(head, goal.cells(), strict=True)) for goal in goals(results))}
## Listing

Wall time and CPU: the best of three in a process, the median of the processes. Memory: the peak by tracemalloc.

{_table(_listing_rows(results))}
## Waiting

The peer is a trigger made of the Amazon provider's AwsBaseWaiterTrigger and botocore's `image_version_created` waiter.
Each image has 100 versions. Ours makes up to one call a second, after ten at once (the default). The version becomes
CREATED right after a poll, the worst moment.

{_table(_wait_rows(results))}
## Memory per wait

Of waits added to one for the same image. `empty` waits for an asyncio.Event: Airflow's own part.

{_table(_memory_rows(results))}
{_airflow_part(results)}"""


def _listing_rows(results: Row) -> Iterable[dict[str, str]]:
    for way in dict.fromkeys(row["way"] for row in results["listing"]):
        found = _find(results, "listing", way=way)
        versions = found[0]["versions"]
        peak = _median(results, "listing_memory", "peak_bytes", way=way, versions=versions)
        yield {
            "way": way,
            "versions": f"{versions:,}",
            "calls": f"{found[0]['calls']:,.0f}",
            "wall, s": f"{median(row['wall_seconds'] for row in found):.3f}",
            "CPU, s": f"{median(row['cpu_seconds'] for row in found):.3f}",
            "peak, MB": f"{peak / _MB:.2f}" if peak else "",
        }


def _wait_rows(results: Row) -> Iterable[dict[str, str]]:
    for run in sorted(results["waits"], key=lambda run: (run["images"], run["interval"], run["waits"], run["kind"])):
        start, end = run["loop_at_start"], run["loop_at_end"]
        yield {
            "trigger": run["kind"],
            "waits": f"{run['waits']:,}",
            "images": str(run["images"]),
            "interval, s": str(run["interval"]),
            "calls per interval": f"{run['calls_per_interval']:.1f}",
            "first answer to the last, s": f"{run['first_answer_of_last_wait']:.2f}",
            "loop blocked at the start: longest, s": f"{start['longest']:.3f}",
            "but for garbage collections": f"{start['longest_without_collections']:.3f}",
            "sum of those over 0.2 s": f"{start['total_over_200_ms']:.2f}",
            "between polls and at them: longest, s": f"{run['loop_between']['longest']:.3f}",
            "at the end: longest, s": f"{end['longest']:.3f}",
            "CPU, % of a core": f"{run['cpu_percent_of_a_core']:.2f}",
            "CPU s per wait and hour": f"{run['cpu_seconds_per_wait_and_hour']:.4f}",
            "CREATED to event: median, s": f"{run['created_to_event_median']:.2f}",
            "the last, s": f"{run['created_to_event_max']:.2f}",
            "RSS at the end, MB": f"{run['rss_at_end'] / _MB:.0f}",
        }


def _memory_rows(results: Row) -> Iterable[dict[str, str]]:
    for kind in _KINDS:
        found = {row["what"]: row for row in _find(results, "wait_memory", kind=kind)}
        if found:
            yield {
                "trigger": kind,
                "waits added": f"{found['rss']['waits']:,}",
                "RSS of each, KB": f"{found['rss']['bytes_per_wait'] / _KB:,.1f}",
                "by tracemalloc, KB": f"{found['tracemalloc']['bytes_per_wait'] / _KB:,.1f}",
            }


_AIRFLOW_TIMES = {
    "CREATED to success": "created_to_success",
    "but for the wait for a poll": "answer_to_success",
    "the slowest": "last",
}


def _airflow_part(results: Row) -> str:
    rows = [
        {
            "sensor": row["kind"],
            "sensors": str(row["waits"]),
            "interval, s": str(row["interval"]),
            "worker CPU s per sensor": f"{row['worker_cpu_seconds_per_wait']:.2f}",
            "processes per sensor": f"{row['processes_per_wait']:.2f}",
            **{
                f"{title}, {who}, s": f"{row[f'{part}_{figure}']:.2f}"
                for part, who in (("lone", "one sensor"), ("burst", "many"))
                for title, figure in _AIRFLOW_TIMES.items()
            },
        }
        for row in _find(results, "airflow", supported=True)
    ]
    if not rows:
        return ""
    return f"""\
## In a real Airflow

LocalExecutor, {_find(results, "airflow", supported=True)[0]["repeats"]} runs. One sensor alone, and many that are
ready at the same moment, which queue for the executor's workers where a worker has to end them. A figure is the median
of the runs, and in a run the mean of the sensors; the slowest is that of all.

{_table(rows)}"""


# --- The plot: a few lines and circles, not worth a dependency -------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 230, 48, 20, 30, 40
_COLOURS = {"ours": "#0b6e4f", "peer": "#c1440e"}
_FLOOR = 1e-4
_PANELS: list[tuple[str, Callable[[Row], float]]] = [
    ("API calls per interval", lambda run: run["calls_per_interval"]),
    ("seconds until the last wait has its first answer", lambda run: run["first_answer_of_last_wait"]),
    ("event loop blocked at the start, longest, s", lambda run: run["loop_at_start"]["longest"]),
    ("CPU seconds per wait and hour", lambda run: run["cpu_seconds_per_wait_and_hour"]),
]


def plot(results: Row) -> str:
    """Return an SVG plot of the costs of N waits on one image over N, with logarithmic axes."""
    interval = min(run["interval"] for run in results["waits"])
    runs = sorted(_find(results, "waits", images=1, interval=interval), key=lambda run: run["waits"])
    width, height = 2 * _WIDTH, 2 * _HEIGHT + 24
    shapes = [f'<rect width="{width}" height="{height}" fill="white"/>']
    for number, (kind, colour) in enumerate(_COLOURS.items()):
        shapes.append(f'<text x="{_LEFT + number * 60}" y="16" fill="{colour}" font-weight="bold">{kind}</text>')
    shapes.append(f'<text x="{width - _RIGHT}" y="16" text-anchor="end">over waits on one image</text>')
    for number, (title, figure) in enumerate(_PANELS):
        corner = f"{number % 2 * _WIDTH} {number // 2 * _HEIGHT + 24}"
        shapes.append(f'<g transform="translate({corner})">{"".join(_panel(runs, title, figure))}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11">{"".join(shapes)}</svg>\n'
    )


def _panel(runs: list[Row], title: str, figure: Callable[[Row], float]) -> Iterable[str]:
    points = [(run["kind"], run["waits"], max(figure(run), _FLOOR)) for run in runs]
    low = math.floor(math.log10(min(value for *_, value in points)))
    high = max(math.ceil(math.log10(max(value for *_, value in points))), low + 1)
    most = math.log10(max(waits for _, waits, _ in points)) or 1

    def x(waits: float) -> float:
        return _LEFT + math.log10(waits) / most * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log10(value) - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    yield f'<text x="{_LEFT}" y="18" font-weight="bold">{title}</text>'
    for tick in (10.0**exponent for exponent in range(low, high + 1)):
        yield f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for waits in sorted({waits for _, waits, _ in points}):
        yield f'<text x="{x(waits):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{waits:,}</text>'
    for kind, colour in _COLOURS.items():
        line = [(x(waits), y(value)) for of, waits, value in points if of == kind]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in line)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}"/>' for left, top in line)
