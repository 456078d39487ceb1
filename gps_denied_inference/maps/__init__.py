"""Maps that frames are located on: prepared once on the ground, opened read-only in flight."""

from typing import TYPE_CHECKING

from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.maps.frame import LocalFrame
    from gps_denied_inference.maps.store import MapStore
    from gps_denied_inference.maps.tiles import MapInfo, StoredTile
    from gps_denied_inference.maps.writer import MapWriter

__all__ = [
    "LocalFrame",
    "MapInfo",
    "MapStore",
    "MapWriter",
    "StoredTile",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "frame": ("LocalFrame",),
            "store": ("MapStore",),
            "tiles": ("MapInfo", "StoredTile"),
            "writer": ("MapWriter",),
        },
    )
