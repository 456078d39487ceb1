"""An ``inference_node`` with a defect: soon after it is active, a callback raises."""

from __future__ import annotations

import sys
from typing import Any

from gps_denied_inference.node.node import InferenceNode
from gps_denied_inference.node.process import main


class BrokenNode(InferenceNode):
    """Breaks half a second after its activation."""

    def on_activate(self, state: Any) -> Any:
        """Start taking frames, and the defect's time."""
        result = super().on_activate(state)
        self.create_timer(0.5, self._break)
        return result

    def _break(self) -> None:
        raise RuntimeError("a defect in a callback")


if __name__ == "__main__":
    sys.exit(main(node_class=BrokenNode))
