"""The processes of a soak: a camera, the node with what starts it, the autopilot link."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from node_process import ROOT, NodeProcess
from soak_books import Sent

HERE = Path(__file__).parent
HANGING = ROOT / "test" / "support" / "hanging_node.py"


class Camera:
    """The camera's process, and all that it wrote down; started anew it is another life.

    Attributes:
        sent: every frame of every life.
        kinds: how many frames of each kind were sent.
        picture: number of the newest frame's picture.
    """

    def __init__(self, folder: Path, pictures: Path, rate: float, environment: Mapping[str, str]):
        self._folder, self._pictures, self._rate = folder, pictures, rate
        self._environment = environment
        self.sent: list[Sent] = []
        self.kinds: dict[str, int] = {}
        self.life = self.picture = 0
        self.start()

    def start(self) -> None:
        self.life += 1
        command = [sys.executable, str(HERE / "soak_camera.py"), "--rate", str(self._rate)]
        command += ["--life", str(self.life), "--pictures", str(self._pictures)]
        command += ["--first", str(self.picture)]
        with (self._folder / "camera.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self._environment},
            )  # fmt: skip
        threading.Thread(target=self._read, args=(self.process, self.life), daemon=True).start()

    def _read(self, process: subprocess.Popen[str], life: int) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            number, stamp, kind, picture = line.split()
            self.sent.append(Sent(int(stamp) * 1e-9, life, int(number)))
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            self.picture = int(picture)

    def send(self, kind: str, count: int) -> None:
        """Have the next ``count`` frames be of a kind."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind} {count}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()


class Node:
    """The node's process, started again whenever it ends, with ``autostart`` beside each start.

    That is what ``launch/inference.launch.py`` with ``respawn`` does; here it needs no launch.

    Attributes:
        lives: monotonic s of each start.
        exits: exit codes.
    """

    def __init__(
        self, folder: Path, parameters: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        self._folder, self._parameters, self._environment = folder, parameters, environment
        self.lives: list[float] = []
        self.exits: list[int] = []
        self._closing = threading.Event()
        self._starters: list[subprocess.Popen[bytes]] = []
        self._start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _start(self) -> None:
        self.target = NodeProcess(
            self._folder, "", self._parameters, self._environment, program=HANGING
        )
        self.lives.append(time.monotonic())
        with (self._folder / "autostart.log").open("ab") as log:
            self._starters.append(subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / "autostart"), "/inference_node"],
                stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self._environment},
            ))  # fmt: skip

    def _watch(self) -> None:
        while not self._closing.wait(0.02):
            code = self.target.process.poll()
            if code is not None and not self._closing.is_set():
                self.exits.append(code)
                if code not in (-signal.SIGKILL, 75):
                    print(f"the node ended by itself, exit code {code}:\n"
                          f"{self.target.output[-8000:]}", flush=True)  # fmt: skip
                for starter in self._starters:
                    starter.kill()
                    starter.wait()
                self._starters.clear()
                self._start()

    def signal(self, number: signal.Signals) -> None:
        self.target.signal(number)

    @property
    def pid(self) -> int:
        return self.target.process.pid

    def close(self) -> int:
        """End it by SIGINT; return its exit code."""
        self._closing.set()
        self._thread.join()
        self.target.signal(signal.SIGINT)
        try:
            code = self.target.process.wait(10)
        except subprocess.TimeoutExpired:
            self.target.process.kill()
            code = self.target.process.wait()
        for starter in self._starters:
            starter.kill()
            starter.wait()
        return code


class Sampler:
    """What each process holds, once a second.

    Attributes:
        load: the computer's load average over a minute, once a second.
        rows: (monotonic s, process's name, pid, RSS in MiB, threads, open files, GPU MiB or None).
    """

    def __init__(self, pids: Callable[[], Mapping[str, int]], period: float = 1.0) -> None:
        self._pids, self._period = pids, period
        self.load: list[float] = []
        self.rows: list[tuple[float, str, int, float, int, int, float | None]] = []
        self._closing = threading.Event()
        self._gpu = _gpu_memory()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(self._period):
            gpu = self._gpu() if self._gpu else {}
            self.load.append(os.getloadavg()[0])
            for name, pid in self._pids().items():
                folder = Path("/proc", str(pid))
                try:
                    pages = int((folder / "statm").read_text().split()[1])
                    threads = len(os.listdir(folder / "task"))
                    files = len(os.listdir(folder / "fd"))
                except (OSError, IndexError):
                    continue
                rss = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
                if rss > 0:
                    self.rows.append(
                        (time.monotonic(), name, pid, rss, threads, files,
                         gpu.get(pid, 0.0) if self._gpu else None)
                    )  # fmt: skip

    def close(self) -> None:
        self._closing.set()
        self._thread.join(10)


def _gpu_memory() -> Callable[[], dict[int, float]] | None:
    """Return what reads each process's memory on the first GPU, MiB; None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:
        return None

    def read() -> dict[int, float]:
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(device)
        return {p.pid: (p.usedGpuMemory or 0) / 2**20 for p in running}

    return read
