"""PROJ: transformations between frames of the Earth. The only module that imports pyproj."""

from __future__ import annotations

from typing import Any

from gps_denied_inference.errors import ConfigurationError


def between(source: str, target: str, purpose: str) -> Any:
    """Return a ``pyproj.Transformer``; x is east or longitude, whatever the frames' own order.

    Args:
        source: frame, as PROJ names it.
        target: frame.
        purpose: what needs it, for the error: "maps".

    Raises:
        ConfigurationError: pyproj is not installed.
    """
    return _pyproj(purpose).Transformer.from_crs(source, target, always_xy=True)


def shifted_by_grid(grid: str, purpose: str) -> Any:
    """Return a ``pyproj.Transformer`` of longitude, latitude (degrees) and height by a grid.

    Args:
        grid: path of a vertical grid.
        purpose: what needs it, for the error.

    Raises:
        ConfigurationError: pyproj is not installed.
        ValueError: PROJ cannot use the grid.
    """
    pyproj = _pyproj(purpose)
    try:
        return pyproj.Transformer.from_pipeline(
            "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad "
            f'+step +proj=vgridshift +grids="{grid}" +multiplier=1 '
            "+step +proj=unitconvert +xy_in=rad +xy_out=deg"
        )
    except pyproj.exceptions.ProjError as error:
        raise ValueError(str(error)) from error


def _pyproj(purpose: str) -> Any:
    try:
        import pyproj
    except ImportError as error:
        raise ConfigurationError(
            f"{purpose} need pyproj ({error}): python3 -m pip install pyproj"
        ) from error
    return pyproj
