"""Where the package's shared files lie: message definitions, configuration, launch files."""

from __future__ import annotations

from pathlib import Path

from gps_denied_inference.errors import ConfigurationError


def shared_path(*parts: str) -> Path:
    """Return a shared file or folder, e.g. ``shared_path("msg")``.

    It lies beside the Python package in a source tree, and in ``share/gps_denied_inference`` of
    the prefix that the package is installed into, by colcon as by pip.

    Raises:
        ConfigurationError: it is in neither place.
    """
    package = Path(__file__).parent.parent
    candidates = [package.parent.joinpath(*parts), package.resolve().parent.joinpath(*parts)]
    candidates += [
        prefix.joinpath("share", "gps_denied_inference", *parts) for prefix in package.parents
    ]
    # A file of this package's own source tree, not any folder "msg" that lies beside it.
    markers = [package.parent / "package.xml", package.resolve().parent / "package.xml"]
    for position, candidate in enumerate(candidates):
        if candidate.exists() and (position >= len(markers) or markers[position].exists()):
            return candidate
    raise ConfigurationError(
        f"{'/'.join(parts)} of gps_denied_inference is not installed: build the package with "
        "colcon, or run it from its source tree"
    )
