"""Run the conformance suite and the GPU tests, and write what passed as JSON.

On a machine with an NVIDIA GPU, from the repository's root::

    PYTHONPATH=. python3 benchmarks/gpu/conformance_report.py --json conformance.json
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from bench_report import describe

from gps_denied_inference.runtimes.gpus import survey

SUITES = (
    "test/unit/runtimes/test_conformance.py",
    "test/unit/runtimes/test_matcher_conformance.py",
    "test/gpu",
)


class Results:
    """A pytest plugin that counts outcomes per runtime, and keeps why a test was skipped."""

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.skips: defaultdict[str, set[str]] = defaultdict(set)
        self.failures: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        case = report.nodeid.rpartition("[")[2].rstrip("]") if "[" in report.nodeid else "gpu tests"
        self.outcomes[case][report.outcome] += 1
        if report.outcome == "failed":
            self.failures.append(report.nodeid)
        elif report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            self.skips[case].add(report.longrepr[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    results = Results()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *SUITES], plugins=[results])
    found = survey()
    report = {
        "machine": describe(found.gpus[0], found),
        "outcomes": {case: dict(counts) for case, counts in sorted(results.outcomes.items())},
        "skipped_because": {case: sorted(why) for case, why in sorted(results.skips.items())},
        "failures": results.failures,
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
