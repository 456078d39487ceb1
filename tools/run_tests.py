"""Run the tests: side by side in several processes, then those that must have the machine alone.

    tools/with_env python tools/run_tests.py [pytest's arguments]

Where the arguments choose tests (a path, ``-k``, ``--lf``, ...), pytest gets them as they are, in
one process. Otherwise there are two runs, and the last line sums their counts:
``1602 passed, 0 failed, 418 skipped``. The exit status is 0 only where both runs passed.

``GDI_TEST_WORKERS`` says how many processes run side by side (default: one more than there are
processors, since many tests wait for another process; 0 = one run after the other in one process).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter

NO_TESTS = 5  # pytest's exit status where nothing was selected
KINDS = ("passed", "failed", "skipped")
SELECTION = ("deselected", "warning", "warnings")  # no test's outcome
_OUTCOME = r"\d+ (?:passed|failed|skipped|deselected|xfailed|xpassed|errors?|warnings?|rerun)"
_CLOSING = re.compile(rf"^=*\s*({_OUTCOME}(?:, {_OUTCOME})*) in [\d.]+s")


def counts(line: str) -> Counter[str] | None:
    """Return what pytest's closing line counts, None where ``line`` is another one."""
    match = _CLOSING.match(re.sub(r"\x1b\[[\d;]*m", "", line))
    if match is None:
        return None
    found: Counter[str] = Counter()
    for number, kind in re.findall(r"(\d+) ([a-z]+)", match[1]):
        found[{"error": "failed", "errors": "failed"}.get(kind, kind)] += int(number)
    return found


def summary(found: Counter[str]) -> str:
    """Return the counts of both runs as one line; other outcomes come last, where there are any."""
    others = [kind for kind in found if kind not in (*KINDS, *SELECTION) and found[kind]]
    return ", ".join(f"{found[kind]} {kind}" for kind in (*KINDS, *others))


def chooses(arguments: list[str]) -> bool:
    """Whether the arguments name tests or how to run them, instead of how to print them."""
    return any(
        not argument.startswith("-")
        or argument.startswith(("-k", "-m", "-n", "--lf", "--last-failed", "--collect", "--co"))
        for argument in arguments
    )


def run(arguments: list[str], environment: dict[str, str]) -> tuple[int, Counter[str]]:
    """Run pytest, print what it prints, and return its exit status and its counts."""
    command = [sys.executable, "-m", "pytest", *arguments]
    found: Counter[str] = Counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            found = counts(line) or found
    return process.returncode, found


def main(arguments: list[str]) -> int:
    """Run what ``arguments`` ask for; return the exit status."""
    if chooses(arguments):
        chosen = (
            [] if any("test" in a.split("/")[0] for a in arguments if a[0] != "-") else ["test"]
        )
        return subprocess.call([sys.executable, "-m", "pytest", *chosen, *arguments])
    workers = int(os.environ.get("GDI_TEST_WORKERS") or (os.cpu_count() or 1) + 1)
    side_by_side = ["-n", str(workers), "--dist", "worksteal"] if workers else []
    with tempfile.TemporaryDirectory(prefix="gdi_tests_") as shared:
        # What is dear to make and not changed by any test is made once there.
        environment = {**os.environ, "GDI_TEST_SHARED_FOLDER": shared}
        # One thread per process: the processes share the processors between them.
        crowded = {"OMP_NUM_THREADS": "1", **environment}
        first, total = run(["-m", "not alone", *side_by_side, *arguments], crowded)
        second, rest = run(["-m", "alone", *arguments], environment)
    print(summary(total + rest), flush=True)
    ends = [end for end in (first, second) if end not in (0, NO_TESTS)]
    return ends[0] if ends else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
