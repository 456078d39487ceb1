"""Which Fast DDS profile a launched process gets: the large-image one, unless the user chose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# Jazzy's Fast DDS reads the first name, Kilted's and later the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
CHOICES_OF_THE_USER = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")
"""Variables by which the user has chosen transports already."""
PROFILES_BESIDE = ("DEFAULT_FASTRTPS_PROFILES.xml", "DEFAULT_FASTDDS_PROFILES.xml")
"""Files that Fast DDS reads from the working folder by itself."""


def fastdds_environment(choice: str, share: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give a process its Fast DDS profile; {} = leave as it is.

    Args:
        choice: ``auto``, ``none`` or the path of an XML file.
        share: this package's share folder.
        environment: what the process would inherit.

    Raises:
        ValueError: no such file.
    """
    if choice == "none":
        return {}
    if choice == "auto":
        rmw = environment.get("RMW_IMPLEMENTATION", "")
        if "fastrtps" not in (rmw or "rmw_fastrtps_cpp"):
            return {}
        if any(environment.get(name) for name in CHOICES_OF_THE_USER):
            return {}
        if any(Path(name).is_file() for name in PROFILES_BESIDE):
            return {}
        choice = str(share / "config" / "fastdds_large_images.xml")
    elif not Path(choice).is_file():
        raise ValueError(f"fastdds_profile:={choice}: no such file (or say auto or none)")
    return dict.fromkeys(PROFILE_VARIABLES, str(Path(choice).absolute()))
