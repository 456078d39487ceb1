"""Fly for long with a fault every few seconds: real processes, 30 Hz, localization and link on.

    make soak HOURS=1            or MINUTES=10; out/soak/ gets report.json, soak.png, logs

Exit status 1 where a bound is broken; see soak_report.py for the bounds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from lifecycle_msgs.msg import Transition
from link_process import PROGRAM as LINK_PROGRAM
from node_process import NodeProcess
from simulated_map import scene_map
from soak_books import judge_all
from soak_faults import FAULTS, RATE, Flight, rounds
from soak_monitor import LINK, Monitor
from soak_processes import Camera, Node, Sampler
from soak_report import LOOKED_AT, Report, Struck, recovered_after
from stand_in_autopilot import StandInAutopilot
from test_link import free_port
from test_thermal_process import Zone

from gps_denied_inference.clients.fastdds_profile import fastdds_environment
from gps_denied_inference.demo.scene_map import ORIGIN, truth
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.maps.frame import LocalFrame

ROOT = Path(__file__).resolve().parents[2]
PICTURES = 240
INTERIM = 300.0
"""s between two reports on what was flown so far."""
PARAMETERS = {
    "task": "localize", "device": "cpu", "image_width": 320, "image_height": 256,
    "max_keypoints": 200, "threads": 1, "warmup_iterations": 1, "fix_rate": 1.0,
    "status_rate": 10.0, "thermal_source": "sysfs", "thermal_dwell": 1.0,
}  # fmt: skip
LINK_PARAMETERS = {"max_speed": 1000.0, "max_fix_sigma": 2000.0, "max_fix_age": 5.0}
LINK_WIRING = {
    "fix": "inference_node/fix",
    "odometry": "inference_node/odometry",
    "localization_status": "inference_node/localization_status",
}


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of 64 MiB; False where only the superuser could."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def steer(flight: Flight, simulation: SimulatedFlight, end: threading.Event) -> None:
    """Let the autopilot know where the newest frame was taken."""
    frame = LocalFrame(*ORIGIN)
    while not end.wait(0.05):
        index = flight.camera.picture
        place, pose = truth(simulation, index), simulation.pose(index)
        said = flight.autopilot.said
        said.latitude, said.longitude = frame.to_geodetic(place.real, place.imag + flight.astray)
        said.height, half = 1.04 * pose.height, 0.5 * pose.heading
        said.quaternion = (math.cos(half), 0.0, 0.0, math.sin(half))


def fly(options: argparse.Namespace, folder: Path) -> Report:
    """Bring everything up, put faults in until the time is over, bring everything down."""
    seconds = 3600.0 * options.hours + 60.0 * options.minutes
    notes = [f"seed {options.seed}, a fault every {options.every:g} s"]
    simulation = SimulatedFlight(frames=PICTURES)
    pictures = folder / "pictures.npy"
    np.save(pictures, np.stack([cv2.cvtColor(simulation.render(i), cv2.COLOR_RGB2GRAY)
                                for i in range(PICTURES)]))  # fmt: skip
    zone, command, port = Zone(folder / "heat"), folder / "command", free_port()
    dds = fastdds_environment("auto", ROOT, os.environ)
    os.environ.update(dds)
    monitor, end = Monitor(), threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(monitor.close)
        mounted = stack.enter_context(small_disk(folder / "disk"))
        if not mounted:
            notes.append("disk_full: no small disk could be mounted, the cache was only emptied")
        parameters = {
            **PARAMETERS, "map_file": str(scene_map()), "thermal_sysfs_root": str(zone.root),
            "engine_cache_directory": str(folder / "disk" / "engines"),
        }  # fmt: skip
        environment = {"GDI_FAULT": str(command), "GDI_FAULT_RUNTIME": "onnxruntime",
                       "GDI_FAULT_PASSES": "1", "PYTHONFAULTHANDLER": "1"}  # fmt: skip
        node = Node(folder, parameters, {**environment, **dds})
        stack.callback(node.close)
        autopilot = stack.enter_context(StandInAutopilot(port))
        (folder / "link").mkdir()
        link = stack.enter_context(NodeProcess(
            folder / "link", parameters={"autopilot_url": f"udp:127.0.0.1:{port}",
                                         **LINK_PARAMETERS},
            program=LINK_PROGRAM, remappings=LINK_WIRING,
        ))  # fmt: skip
        camera = Camera(folder, pictures, RATE, dds)
        stack.callback(camera.close)
        flight = Flight(
            camera, node, monitor, autopilot, command, folder / "disk", mounted, zone.heat,
            random.Random(options.seed),
        )  # fmt: skip
        threading.Thread(target=steer, args=(flight, simulation, end), daemon=True).start()
        stack.callback(end.set)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert monitor.ask(transition, LINK, 60.0), link.output
        wait_for(lambda: len(monitor.answers) > 3 * RATE, 90.0, node)
        sampler = Sampler(lambda: {"node": node.pid, "link": link.process.pid,
                                   "camera": camera.process.pid})  # fmt: skip
        stack.callback(sampler.close)
        begin = time.monotonic()
        struck: list[tuple[str, float, float]] = []

        def report() -> Report:
            answers, finish = list(monitor.answers), time.monotonic()
            heard = [a.time for a in answers]
            known = [f for f in list(struck) if f[2] + LOOKED_AT <= finish]
            return Report(
                begin, finish, [Struck(n, b, d, recovered_after(d, heard)) for n, b, d in known],
                list(camera.sent), answers,
                judge_all(list(monitor.counts), answers, list(camera.sent)),
                list(sampler.rows), list(monitor.fixes),
                [t for t, m in list(autopilot.got["GLOBAL_POSITION_SENSOR"]) if not m.flags],
                list(node.exits),
                [*notes, describe_load(sampler.load)],
            )  # fmt: skip

        def write_so_far() -> None:
            while not end.wait(INTERIM):
                write(report(), options.out)

        threading.Thread(target=write_so_far, daemon=True).start()
        try:
            put_in(flight, begin, seconds, options, struck)
        except KeyboardInterrupt:
            notes.append("asked to end before its time")
        assert link.process.poll() is None, link.output
        return report()


def describe_load(load: list[float]) -> str:
    """Say how busy the computer was: what else runs on it costs frames and time."""
    low, middle, high = np.percentile(load or [math.nan], (5, 50, 95))
    return (
        f"load average {low:.1f}, {middle:.1f}, {high:.1f} (5, 50, 95 %) on {os.cpu_count()} "
        "processors"
    )


def put_in(
    flight: Flight, begin: float, seconds: float, options: argparse.Namespace,
    struck: list[tuple[str, float, float]],
) -> None:  # fmt: skip
    """Put in a fault every so often; note each one's name, begin and end in ``struck``."""
    draw = rounds(flight.random)
    due = begin + options.every
    while due + options.every <= begin + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        name = draw()
        if options.only and name not in options.only:
            continue
        start = time.monotonic()
        end = FAULTS[name](flight)
        struck.append((name, start, end))
        print(f"{(start - begin) / 60.0:6.2f} min  {name}", flush=True)
        due = max(due + options.every, end + LOOKED_AT)
    time.sleep(max(0.0, begin + seconds - time.monotonic()))


def wait_for(fact: Any, limit: float, node: Node) -> None:
    end = time.monotonic() + limit
    while not fact():
        if time.monotonic() > end:
            raise SystemExit(f"the flight did not begin within {limit:g} s:\n{node.target.output}")
        time.sleep(0.05)


def write(report: Report, out: Path) -> tuple[dict[str, Any], list[str]]:
    """Write the report's figures and picture; return the figures and the bounds that are broken."""
    figures = report.figures()
    broken = figures["broken"] = report.broken(figures)
    (out / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    report.picture(out / "soak.png")
    with (out / "processes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("s", "process", "pid", "rss_mib", "threads", "files", "gpu_mib"))
        table.writerows((round(row[0] - report.begin, 2), *row[1:]) for row in report.rows)
    return figures, broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--every", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), help="these faults alone")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "soak")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    os.environ.setdefault("RCUTILS_COLORIZED_OUTPUT", "0")
    folder = (options.out / "work").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = fly(options, folder)
    figures, broken = write(report, options.out)
    print(report.text(figures))
    print("\n".join(f"BROKEN: {line}" for line in broken) or "every bound holds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
