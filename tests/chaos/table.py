"""`python -m tests.chaos.table reports…`: what the reports of all commands say, as the tables of docs/reliability.md.

With `--page docs/reliability.md` each table replaces the one between its two marks; a kind of which there is no report
stays as it is.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.chaos.faults import FAULTS
from tests.chaos.mutants import MUTANTS

Reports = Sequence[dict[str, Any]]


def chaos(reports: Reports) -> list[str]:
    """Faults with how often each struck, median and worst recovery, and whether the worst is within its bar. Bars that
    hang on an engine's start differ from run to run: every time is held against its own run's, the longest is shown."""
    times: dict[str, list[float]] = defaultdict(list)
    bars: dict[str, list[float]] = defaultdict(list)
    struck: Counter[str] = Counter()
    late: Counter[str] = Counter()
    for report in reports:
        struck.update(fault for fault in report["faults"] if fault not in report["not_here"])
        for fault, seconds in report["recoveries"].items():
            times[fault] += seconds
            bars[fault] += report["bars"].get(fault, [])
            late[fault] += sum(one > bar for one, bar in zip(seconds, report["bars"].get(fault, []), strict=False))
    lines = ["| fault | struck | recovery, s: median | worst | at most | |", "|---|---|---|---|---|---|"]
    for fault in FAULTS:
        if struck[fault]:
            middle, worst = (f"{of(times[fault]):.1f}" if times[fault] else "–" for of in (median, max))
            bar = f"{max(bars[fault]):.1f}" if bars[fault] else "–"
            verdict = "" if not bars[fault] else f"{late[fault]} late " if late[fault] else "kept "
            lines.append(f"| {fault} | {struck[fault]} | {middle} | {worst} | {bar} | {verdict}|")
    return [*lines, "", *_summary(reports), *_missing(reports)]


def _summary(reports: Reports) -> list[str]:
    operations, retries = (sum(report[key] for report in reports) for key in ("operations", "retries"))
    seeds = ", ".join(str(report["seed"]) for report in reports)
    clean = sum(not report["findings"] for report in reports)
    starts = [report["engine_start_s"] for report in reports]
    where = ", ".join(
        sorted({f"{report['machine']['cores']} cores, {report['device']}, {report['network']}" for report in reports})
    )
    went_on = sum((Counter(report["continued"]) for report in reports), Counter[str]())
    slowest_cancel = max((seconds for report in reports for seconds in report["cancelled_s"]), default=0.0)
    return [
        f"Seeds {seeds} ({where}): {operations} operations, {retries} retries by clients; audit clean in {clean} of "
        f"{len(reports)} runs. An engine started in {min(starts):.1f} to {max(starts):.1f} s; the lease was "
        f"{reports[0]['lease_s']:g} s. Cancelled jobs cost the engine up to {slowest_cancel:.1f} s.",
        "",
        "Went on in another attempt from published tokens: "
        + ", ".join(f"{count} {what}" for what, count in went_on.items())
        + ".",
    ]


def _missing(reports: Reports) -> list[str]:
    reasons = {fault: reason for report in reports for fault, reason in report["not_here"].items()}
    return [f"Not tried on every machine: {fault} ({reason})." for fault, reason in reasons.items()]


def overload(reports: Reports) -> list[str]:
    lines = [
        "| capacity, jobs/s | offered | accepted | 429 | p50, ms | p99, ms | longest queue (limit) | meanwhile, jobs/s"
        " | drained at, jobs/s | lost | findings |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in reports:
        offered = f"{r['times']:g} × for {r['seconds']:.0f} s"
        lines.append(
            f"| {r['capacity_per_s']:.1f} | {offered} | {r['statuses'].get('201', 0)} | {r['statuses'].get('429', 0)} "
            f"| {r['p50_ms']:.0f} | {r['p99_ms']:.0f} | {r['longest_queue']} ({r['max_queued']}) "
            f"| {r['overloaded_per_s']:.1f} | {r['drained_per_s']:.1f} | {r['lost'] or 'none'} "
            f"| {len(r['findings']) or 'none'} |"
        )
    return lines


def soak(reports: Reports) -> list[str]:
    lines: list[str] = []
    for r in reports:
        names = list(dict.fromkeys(name for sizes in r["memory_mib"] for name in sizes))
        faults = ", ".join(f"{fault} {count}×" for fault, count in r["faults"].items()) or "none"
        lines += [
            f"{r['jobs']} jobs at {r['jobs_per_s']:.1f}/s; faults: {faults}; findings: {len(r['findings']) or 'none'}.",
            "",
            f"| part | p50, ms | p99, ms | {' | '.join(f'{name}, MiB' for name in names)} |",
            "|---|---|---|" + "---|" * len(names),
        ]
        for k, sizes in enumerate(r["memory_mib"]):
            told = " | ".join(str(sizes.get(name, "–")) for name in names)
            lines.append(f"| {k + 1}/10 | {r['p50_ms'][k]:.0f} | {r['p99_ms'][k]:.0f} | {told} |")
    return lines


def mutants(reports: Reports) -> list[str]:
    lines = ["| taken out | findings | the first of them |", "|---|---|---|"]
    found = {name: findings for report in reports for name, findings in report["mutants"].items()}
    for mutant in MUTANTS:
        if mutant.name in found:
            findings = found[mutant.name]
            first = findings[0][:200].replace("|", "/").replace("\n", " ") if findings else "nothing"
            lines.append(f"| {mutant.name} | {len(findings)} | {first} |")
    return lines


KINDS: dict[str, tuple[str, Callable[[Reports], list[str]]]] = {
    "chaos": ("recoveries", chaos),
    "overload": ("p99_ms", overload),
    "soak": ("memory_mib", soak),
    "mutants": ("mutants", mutants),
}
"""Each with what its reports have unless they broke off before there was anything to tell."""


def tables(files: Sequence[Path]) -> dict[str, str]:
    """By kind, of the kinds that there are reports of. Runs that broke off have no numbers, and are counted."""
    reports = [json.loads(file.read_text()) for file in files]
    made = {}
    for kind, (told, table) in KINDS.items():
        some = sorted((report for report in reports if report["kind"] == kind), key=lambda report: int(report["seed"]))
        whole = [report for report in some if told in report]
        lines = table(whole) if whole else []
        if broken := len(some) - len(whole):
            lines += ["", f"{broken} run{'s' if broken > 1 else ''} broke off."]
        if some:
            made[kind] = "\n".join(lines)
    return made


def put_in(page: Path, made: dict[str, str]) -> None:
    """Raises ValueError when the page has no place for a table."""
    text = page.read_text()
    for kind, table in made.items():
        between = re.compile(rf"(<!-- {kind} -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
        if not between.search(text):
            raise ValueError(f"{page}: no marks <!-- {kind} --> and <!-- /{kind} -->")
        text = between.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    page.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--page", type=Path, help="put the tables in their places there")
    asked = parser.parse_args()
    made = tables(asked.reports)
    if asked.page:
        put_in(asked.page, made)
    else:
        print("\n\n".join(made.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
