"""What a rosbag2 looks like on disk: a folder of data files with metadata, or one data file."""

from __future__ import annotations

import re
from pathlib import Path

BAG_SUFFIXES = frozenset({".db3", ".mcap"})
METADATA = "metadata.yaml"


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag's folder, with or without metadata, or a file of one."""
    if path.is_dir():
        return (path / METADATA).exists() or bool(data_files(path))
    return path.suffix in BAG_SUFFIXES


def data_files(folder: Path) -> list[Path]:
    """Return the data files of a bag's folder in their order: bag_2 comes before bag_10."""

    def key(file: Path) -> list[tuple[int, str]]:
        return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", file.name)]

    files = (entry for entry in folder.iterdir() if entry.suffix in BAG_SUFFIXES)
    return sorted((file for file in files if file.is_file()), key=key)


def beside(bag: Path, ending: str) -> Path:
    """Return a path beside a bag, of its whole name and an ending, that lies in no bag.

    Beside a data file, that is beside the bag's folder where the file lies in one.
    """
    bag = bag.resolve()
    if bag.is_dir():
        return bag.with_name(bag.name + ending)
    folder = bag.parent
    is_part = (folder / METADATA).exists() or bag.name.startswith(f"{folder.name}_")
    return (folder.parent if is_part else folder) / (bag.stem + ending)
