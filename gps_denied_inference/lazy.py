"""Public names of a package that are imported when they are first asked for.

So ``import gps_denied_inference.runtimes`` loads no vendor library, and packages that need each
other's parts can both say what is public.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def exports(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that finds public names where they are defined.

    Args:
        package: ``__name__`` of the package.
        homes: public names by the submodule, relative to ``package``, that defines them.
    """
    found = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{found[name]}"), name)

    return find
