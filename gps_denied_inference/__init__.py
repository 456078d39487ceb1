"""Neural features, tracks and matches for drones that navigate without GPS.

Importing this package imports no vendor library and no ROS: runtimes, networks and the node are
loaded when they are asked for.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

# The generated messages (gps_denied_inference.msg) live in another folder of the same name when
# the package is run from its source tree; this lets Python find both.
__path__ = extend_path(__path__, __name__)

from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.errors import GpsDeniedInferenceError
    from gps_denied_inference.session import FrameResult, InferenceSession
    from gps_denied_inference.settings import Settings

__all__ = [
    "FrameResult",
    "GpsDeniedInferenceError",
    "InferenceSession",
    "Settings",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "errors": ("GpsDeniedInferenceError",),
            "session": ("FrameResult", "InferenceSession"),
            "settings": ("Settings",),
        },
    )
