"""Trees of kernel files, shaped like those of real boards.

Names, trip points and counters follow what the boards' own kernels list; the temperatures are made
up. ``tree.set`` and ``tree.remove`` change a tree while a source reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Trip = tuple[str, float]


class Tree:
    """A root folder with ``sys``, ``proc``, ``etc`` and ``var`` as far as they are needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._zones = 0
        self._coolers = 0
        self._chips = 0

    def set(self, path: str, value: object) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
        return file

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def zone(self, name: str, celsius: float | str, *trips: Trip) -> str:
        folder = f"sys/class/thermal/thermal_zone{self._zones}"
        self._zones += 1
        self.set(f"{folder}/type", name)
        self.heat(folder, celsius)
        for number, (kind, limit) in enumerate(trips):
            self.set(f"{folder}/trip_point_{number}_type", kind)
            self.set(f"{folder}/trip_point_{number}_temp", round(limit * 1000))
        return folder

    def heat(self, zone: str, celsius: float | str) -> None:
        value = celsius if isinstance(celsius, str) else round(celsius * 1000)
        self.set(f"{zone}/temp", value)

    def cooler(self, name: str, state: int = 0, most: int = 10) -> str:
        folder = f"sys/class/thermal/cooling_device{self._coolers}"
        self._coolers += 1
        self.set(f"{folder}/type", name)
        self.set(f"{folder}/cur_state", state)
        self.set(f"{folder}/max_state", most)
        return folder

    def chip(self, name: str, **files: object) -> str:
        folder = f"sys/class/hwmon/hwmon{self._chips}"
        self._chips += 1
        self.set(f"{folder}/name", name)
        for file, value in files.items():
            self.set(f"{folder}/{file}", value)
        return folder


ORIN_TRIPS: tuple[Trip, ...] = (("critical", 104.5), ("hot", 103.0), ("passive", 99.0))


def orin(tree: Tree, model: str) -> Tree:
    """Jetson Orin NX or Nano, JetPack 6."""
    for name, celsius in (("cpu", 48.3), ("gpu", 46.1), ("soc0", 47.0), ("soc1", 46.8)):
        tree.zone(f"{name}-thermal", celsius, *ORIN_TRIPS)
    # The computer vision units are switched off: their zones refuse to be read, and so are empty.
    tree.zone("cv0-thermal", "", *ORIN_TRIPS)
    tree.zone("tj-thermal", 48.3, ("active", 51.0), ("active", 61.0), *ORIN_TRIPS)
    tree.cooler("pwm-fan", 1, 3)
    for name in ("cpu", "gpu", "soc0"):
        tree.cooler(f"{name}-throttle-alert", 0, 1)
    tree.cooler("hot-surface-alert", 0, 1)
    tree.cooler("cpufreq-cpu0", 0, 15)
    tree.cooler("17000000.gpu", 0, 10)
    tree.chip(
        "ina3221",
        in1_label="VDD_IN",
        in1_input=4984,
        curr1_input=1200,
        in2_label="VDD_CPU_GPU_CV",
        in2_input=4976,
        curr2_input=400,
    )
    tree.chip("soctherm_oc", oc1_event_cnt=0, oc2_event_cnt=4, oc3_event_cnt=0)
    nano = model == "nano"
    tree.set("sys/class/devfreq/17000000.gpu/cur_freq", 306000000)
    tree.set("sys/class/devfreq/17000000.gpu/max_freq", 624750000 if nano else 918000000)
    tree.set("sys/class/devfreq/17000000.gpu/device/load", 523)
    tree.set("var/lib/nvpmodel/status", "pmode:0000")
    name = "15W" if nano else "MAXN"
    tree.set("etc/nvpmodel.conf", f"< POWER_MODEL ID=0 NAME={name} >\nCPU_ONLINE CORE_0 1")
    return tree


def xavier(tree: Tree) -> Tree:
    """Jetson Xavier NX, JetPack 5."""
    trips: tuple[Trip, ...] = (("critical", 96.5), ("passive", 86.0))
    for name, celsius in (("CPU-therm", 41.5), ("GPU-therm", 40.0), ("AUX-therm", 40.5)):
        tree.zone(name, celsius, *trips)
    tree.zone("AO-therm", 40.5)
    tree.zone("PMIC-Die", 100.0)
    tree.zone("Tboard_tegra", 38.0)
    tree.zone("Tdiode_tegra", 40.25)
    tree.set("sys/class/devfreq/17000000.gv11b/cur_freq", 114750000)
    tree.set("sys/class/devfreq/17000000.gv11b/max_freq", 1109250000)
    tree.set("var/lib/nvpmodel/status", "pmode:0008")
    return tree


def laptop(tree: Tree) -> Tree:
    """A laptop with an Intel CPU and no NVIDIA GPU."""
    tree.zone("acpitz", 45.0, ("critical", 128.0), ("passive", -274.0))
    tree.zone("INT3400 Thermal", 20.0, ("passive", -274.0))
    tree.zone("x86_pkg_temp", 52.0, ("passive", 0.0), ("passive", 0.0))
    tree.zone("iwlwifi_1", "")
    for _ in range(4):
        tree.cooler("Processor", 0, 3)
    tree.cooler("intel_powerclamp", -1, 100)
    tree.cooler("TCC Offset", 5, 63)
    tree.cooler("Fan", 1, 1)
    tree.chip(
        "coretemp",
        temp1_label="Package id 0",
        temp1_input=52000,
        temp1_crit=100000,
        temp1_max=80000,
    )
    tree.set("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", 2400000)
    tree.set("sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq", 4800000)
    tree.set("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3")
    return tree


def raspberry_pi(tree: Tree) -> Tree:
    """Raspberry Pi 4."""
    tree.zone("cpu-thermal", 55.0, ("critical", 110.0))
    tree.set("sys/devices/platform/soc/soc:firmware/get_throttled", "0")
    tree.set("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", 1500000)
    tree.set("sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq", 1800000)
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty tree."""
    return Tree(tmp_path)


@pytest.fixture
def board(tree: Tree) -> Callable[[str], Tree]:
    """Build the tree of a board by its name."""
    makers: dict[str, Callable[[], Tree]] = {
        "orin_nx": lambda: orin(tree, "nx"),
        "orin_nano": lambda: orin(tree, "nano"),
        "xavier": lambda: xavier(tree),
        "laptop": lambda: laptop(tree),
        "raspberry_pi": lambda: raspberry_pi(tree),
    }
    return lambda name: makers[name]()
