"""Random transitions of node and link, with frames, localization and an autopilot: nothing is lost.

``GDI_LONG_TESTS=1`` flies 10,000 transitions, ``GDI_TRANSITIONS`` any other number.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rasterio", reason="rasterio is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from fake_map import fake_map
from lifecycle_msgs.msg import Transition
from link_process import PROGRAM as LINK_PROGRAM
from node_process import ACTIVE, INACTIVE, LONG_TESTS, UNCONFIGURED, NodeProcess, textured_frames
from soak_monitor import LINK, NODE, Monitor
from soak_processes import Camera
from stand_in_autopilot import StandInAutopilot
from test_link import free_port

TRANSITIONS = int(os.environ.get("GDI_TRANSITIONS", "10000" if LONG_TESTS else "200"))
LEADS = {
    (Transition.TRANSITION_CONFIGURE, UNCONFIGURED): INACTIVE,
    (Transition.TRANSITION_ACTIVATE, INACTIVE): ACTIVE,
    (Transition.TRANSITION_DEACTIVATE, ACTIVE): INACTIVE,
    (Transition.TRANSITION_CLEANUP, INACTIVE): UNCONFIGURED,
}
REQUESTS = sorted({request for request, _ in LEADS})
DOWN = {ACTIVE: Transition.TRANSITION_DEACTIVATE, INACTIVE: Transition.TRANSITION_CLEANUP}
BATCH = 100
"""Transitions between two looks at what the processes hold."""
LEAK = 0.005
"""MiB a transition that count as growth: 50 MiB in 10,000."""


def held(process: NodeProcess) -> tuple[int, int, float]:
    """Return threads, open files and resident memory in MiB."""
    folder = Path("/proc", str(process.process.pid))
    pages = int((folder / "statm").read_text().split()[1])
    return (
        len(os.listdir(folder / "task")),
        len(os.listdir(folder / "fd")),
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    )


def rest(monitor: Monitor, name: str) -> None:
    """Bring a node to UNCONFIGURED from wherever it is."""
    end = time.monotonic() + 30.0
    while (state := monitor.state(name)) != UNCONFIGURED:
        assert time.monotonic() < end, f"{name} stays in state {state}"
        if state in DOWN:
            monitor.ask(DOWN[state], name)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_random_transitions_of_node_and_link_under_fire(tmp_path: Path) -> None:
    common: dict[str, object] = {
        "runtime": "fake", "device": "cpu", "max_keypoints": 50, "image_width": 128,
        "image_height": 128, "threads": 1, "warmup_iterations": 1,
        "engine_cache_directory": str(tmp_path / "engines"),
    }  # fmt: skip
    parameters = {**common, "task": "localize", "map_file": str(fake_map(tmp_path, common)),
                  "localization_priority": "low",  # other tests run beside this one
                  "thermal_source": "none", "fix_rate": 5.0}  # fmt: skip
    pictures = tmp_path / "pictures.npy"
    frames = textured_frames(128, 128)
    np.save(pictures, np.stack([next(frames) for _ in range(30)]))
    (tmp_path / "link").mkdir()
    port, rng = free_port(), random.Random(16)
    with (
        NodeProcess(tmp_path, parameters=parameters) as node,
        NodeProcess(
            tmp_path / "link", parameters={"autopilot_url": f"udp:127.0.0.1:{port}"},
            program=LINK_PROGRAM, remappings={n: f"{NODE}/{n}" for n in
                                              ("fix", "odometry", "localization_status")},
        ) as link,
        StandInAutopilot(port),
    ):  # fmt: skip
        monitor = Monitor()
        camera = Camera(tmp_path, pictures, 30.0, {})
        processes = {NODE: node, LINK: link}
        seen: dict[str, list[tuple[int, int, float]]] = {NODE: [], LINK: []}
        done = {"asked": 0, "made": 0, "refused": 0, "at once": 0}
        slowest, begin = 0.0, time.monotonic()
        try:
            for name in processes:
                rest(monitor, name)  # they are up
            for _ in range(0, TRANSITIONS, BATCH):
                states = dict.fromkeys(processes, UNCONFIGURED)
                for _ in range(BATCH):
                    name = NODE if rng.random() < 0.8 else LINK
                    fitting = [r for r, state in LEADS if state == states[name]]
                    request = rng.choice(fitting if fitting and rng.random() < 0.6 else REQUESTS)
                    done["asked"] += 1
                    if name == NODE and rng.random() < 0.2:
                        # Answered in any order, refused where another one runs.
                        monitor.fire(request)
                        done["at once"] += 1
                        continue
                    if name == NODE and done["at once"]:
                        states[name] = monitor.state(name)
                    asked = time.monotonic()
                    answer = monitor.ask(request, name, 30.0)
                    slowest = max(slowest, time.monotonic() - asked)
                    wanted = LEADS.get((request, states[name]))
                    done["made" if answer else "refused"] += 1
                    state = monitor.state(name)
                    assert state, f"{name} does not answer any more: {processes[name].output}"
                    if name == LINK:
                        assert answer == (wanted is not None)
                        assert state == (wanted or states[name])
                    states[name] = state
                    if rng.random() < 0.3:
                        time.sleep(rng.uniform(0.0, 0.05))
                for name, process in processes.items():
                    rest(monitor, name)
                    assert process.process.poll() is None, process.output
                    seen[name].append(held(process))
            status = monitor.status
            minutes = (time.monotonic() - begin) / 60.0
            print(
                f"\n{done['asked']} transitions asked for in {minutes:.1f} min: {done['made']} "
                f"made, {done['refused']} refused, {done['at once']} without waiting; slowest "
                f"answer {slowest:.2f} s; {len(camera.sent)} frames sent, {len(monitor.answers)} "
                f"answered, {len(monitor.localizations)} searched on the map"
            )
            for name in processes:
                told = np.array(seen[name][len(seen[name]) // 5 :])
                gain = np.polyfit(np.arange(len(told)) * BATCH, told[:, 2], 1)[0] if len(
                    told
                ) > 9 else 0.0  # fmt: skip
                print(
                    f"{name}: threads {told[0, 0]:.0f} -> {told[-1, 0]:.0f}, open files "
                    f"{told[0, 1]:.0f} -> {told[-1, 1]:.0f}, RSS {told[0, 2]:.1f} -> "
                    f"{told[-1, 2]:.1f} MiB ({1e3 * gain:+.3f} MiB in 1,000 transitions)"
                )
                assert told[-1, 0] <= told[0, 0] + 1
                assert told[-1, 1] <= told[0, 1] + 2
                assert gain < LEAK
            assert status is not None
            assert monitor.answers
            assert monitor.localizations
            assert monitor.bring_up()
            assert monitor.bring_up(LINK)
            answered = len(monitor.answers)
            end = time.monotonic() + 30.0
            while len(monitor.answers) < answered + 5:
                assert time.monotonic() < end, node.output
                time.sleep(0.05)
            for process in processes.values():
                assert "Traceback" not in process.output
        finally:
            camera.close()
            monitor.close()
