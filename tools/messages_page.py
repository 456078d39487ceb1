"""Writes docs/messages.md from msg/*.msg, which stay the only place where messages are described.

python3 tools/messages_page.py > docs/messages.md
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    "FeatureArray", "MatchArray", "LocalizationStatus", "InferenceStatus", "ThermalState",
    "ThermalSensor", "CameraStatus", "AutopilotLinkStatus",
)  # fmt: skip
PUBLISHED = {
    "FeatureArray": "Published on `~/features`.",
    "MatchArray": "Published on `~/matches` by tasks `track` and `match`.",
    "InferenceStatus": "Published on `~/status`, latched: a late subscriber gets the newest one.",
    "LocalizationStatus": "Published on `~/localization_status` by task `localize`.",
    "AutopilotLinkStatus": "Published on `~/status` of `autopilot_link`, latched.",
    "ThermalState": "Published on `~/thermal_state`, latched.",
    "ThermalSensor": "One entry of `ThermalState.sensors`.",
    "CameraStatus": "One entry of `InferenceStatus.cameras`.",
}
HEAD = """# Messages

Package `gps_denied_inference`. The message files are the public API, and this page is made from
them (`python3 tools/messages_page.py > docs/messages.md`). Units are SI, temperatures are in degree
Celsius; NaN means "not measured" or "not known", never zero. A new field comes last in its message.

`~/feature_cloud` is a `sensor_msgs/PointCloud` and `~/debug_image` a `sensor_msgs/Image`;
`/diagnostics` is a `diagnostic_msgs/DiagnosticArray`. Positions are published as
`sensor_msgs/NavSatFix`, `geometry_msgs/PoseWithCovarianceStamped` and `nav_msgs/Odometry`
([localization](localization.md)).

`ros2 interface show gps_denied_inference/msg/FeatureArray` prints the same on a ROS machine.
"""


def page() -> str:
    """Return the page; raises ValueError where a message has no place in ORDER."""
    found = {path.stem: path for path in (ROOT / "msg").glob("*.msg")}
    if set(found) != set(ORDER):
        raise ValueError(f"msg/ holds {sorted(found)}, ORDER names {sorted(ORDER)}")
    parts = [HEAD]
    for name in ORDER:
        text = found[name].read_text(encoding="utf-8").strip()
        parts.append(f"## {name}\n\n{PUBLISHED[name]}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
