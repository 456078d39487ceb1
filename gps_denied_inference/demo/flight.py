"""What came out of a flight past the node: answers, drops, latencies, and what really ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class NodeStatus:
    """The node's last ``~/status``, without ROS.

    Attributes:
        runtime, provider, device, precision: read back from the loaded engine.
        selection: why earlier choices were passed over, or empty.
        model, model_sha256, engine_sha256: what runs.
        engine_load_time: s.
        frames_in, frames_out: counted by the node.
        drops: counted by the node, by reason.
        stages: (p50, p95) in s, by stage.
    """

    runtime: str = ""
    provider: str = ""
    device: str = ""
    precision: str = ""
    selection: str = ""
    model: str = ""
    model_sha256: str = ""
    engine_sha256: str = ""
    engine_load_time: float = float("nan")
    frames_in: int = 0
    frames_out: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def frames_dropped(self) -> int:
        """Sum over all reasons."""
        return sum(self.drops.values())


@dataclass(frozen=True)
class Flight:
    """One run of the demo.

    Attributes:
        published: frames given to the node.
        answered: frames whose features came back.
        latencies: s, from publishing a frame to its features, of the answered ones in order.
        status: the node's own account after the last frame.
        exit_code: of the node's process.
        configure_time: s, from the request to its answer.
        duration: s, first to last frame.
        findings: why the task gave no result, as the node's status said while frames were sent.
    """

    published: int
    answered: int
    latencies: tuple[float, ...]
    status: NodeStatus
    exit_code: int
    configure_time: float
    duration: float
    findings: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Frames that the node counted as dropped."""
        return self.status.frames_dropped

    @property
    def unaccounted(self) -> int:
        """Frames that were neither answered nor counted as dropped."""
        return self.published - self.answered - self.dropped
