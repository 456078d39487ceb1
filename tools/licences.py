"""List the licence of every package that a flight, a map or the ROS wheels bring, offline::

    tools/with_env python tools/licences.py                   a table; exit status 1: one is unknown
    tools/with_env python tools/licences.py --audit all.zip   and what is known to be vulnerable

What is installed is looked at, not what a registry says: the packages that pyproject.toml names and
all that they need, by their metadata; ROS packages by their ``package.xml``. This package ships no
list of vulnerabilities, which would be old by tomorrow: ``--audit`` takes the file all.zip of
osv.dev's data for PyPI, copied to this machine beforehand, and says how old its newest entry is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

sys.path.insert(0, str(Path(__file__).parent))
from requirements import requirements

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("flight", "autopilot", "maps", "ROS")
KNOWN = {
    "permissive": (
        "apache", "bsd", "mit", "isc", "zlib", "cc0", "psf", "python software foundation", "hpnd",
        "unlicense", "public domain", "any-osi", "0bsd",
    ),
    "weak copyleft": ("mpl", "mozilla public", "lgpl", "lesser general public", "epl", "eclipse"),
    "copyleft": ("gpl", "general public"),
}  # fmt: skip
"""Kinds of licences, by words of their names; the strictest that fits decides."""
BY_TEXT = {
    "Permission is hereby granted, free of charge": "MIT",
    "Apache License Version 2.0": "Apache-2.0",
    "Redistribution and use in source and binary forms": "BSD",
}
"""Licences by words of their text, for metadata that say nothing."""


@dataclass(frozen=True)
class Package:
    """A package: where it is asked for, and what its metadata says; "" where it says nothing."""

    name: str
    version: str
    group: str
    licence: str

    @property
    def kind(self) -> str:
        """``permissive``, ``weak copyleft``, ``copyleft`` or ``unknown``."""
        alternatives = re.split(r"\s+OR\s+", self.licence)
        kinds = [_kind(one) for one in alternatives]
        order = [*KNOWN, "unknown"]
        return min(kinds, key=order.index)  # of alternatives, the user takes the easiest


def _kind(licence: str) -> str:
    text = licence.lower()
    for kind in ("weak copyleft", "copyleft", "permissive"):  # "lgpl" is "gpl" too
        if any(word in text for word in KNOWN[kind]):
            return kind
    return "unknown"


def licence_of(found: metadata.Distribution, prefix: Path) -> str:
    """Return what a package says of its licence; "" where it says nothing."""
    told = found.metadata
    if expression := told.get("License-Expression"):
        return str(expression)
    classified = [str(line).rsplit(" :: ", 1)[-1] for line in told.get_all("Classifier") or ()
                  if str(line).startswith("License ::")]  # fmt: skip
    if classified and classified != ["OSI Approved"]:
        return ", ".join(classified)
    text = str(told.get("License") or "").strip().splitlines()
    if text and len(text[0]) < 60:
        return text[0]
    name = canonical(str(told["Name"]))
    if name.startswith("ros-"):
        for package in {name.removeprefix("ros-"), re.sub(r"^ros-[a-z]+-", "", name)}:
            description = prefix / "share" / package.replace("-", "_") / "package.xml"
            if description.is_file():
                tags = ElementTree.parse(description).findall("license")
                return ", ".join(str(tag.text) for tag in tags)
    for file in found.files or ():
        if re.match(r"licen[cs]e", file.name, re.IGNORECASE) and ".dist-info" in str(file):
            text_of = Path(str(file.locate())).read_text("utf-8", errors="replace")
            for words, licence in BY_TEXT.items():
                if words in " ".join(text_of.split()):
                    return f"{licence} (by its licence file)"
    return ""


def canonical(name: str) -> str:
    """Return a name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(prefix: Path = Path(sys.prefix)) -> list[Package]:
    """Return all packages that are needed, by name; one that is not installed is left out."""
    asked = {"flight": requirements()}
    asked |= {group: requirements(group) for group in ("autopilot", "maps")}
    for file in sorted(ROOT.glob("requirements/ros-*.txt")):
        lines = [line.split("#")[0].strip() for line in file.read_text("utf-8").splitlines()]
        asked.setdefault("ROS", []).extend(filter(None, lines))
    found: dict[str, Package] = {}
    for group in GROUPS:
        for line in asked[group]:
            for distribution in _needed(line, (), set()):
                name = canonical(str(distribution.metadata["Name"]))
                licence = licence_of(distribution, prefix)
                found.setdefault(name, Package(name, distribution.version, group, licence))
    return sorted(found.values(), key=lambda p: (GROUPS.index(p.group), p.name))


def _needed(line: str, extras: tuple[str, ...], seen: set[str]) -> Iterator[metadata.Distribution]:
    requirement = Requirement(line)
    marker, name = requirement.marker, canonical(requirement.name)
    if marker and not any(marker.evaluate({"extra": extra}) for extra in extras or ("",)):
        return
    if name in seen:
        return
    seen.add(name)
    try:
        found = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        return
    yield found
    for other in found.requires or ():
        yield from _needed(other, tuple(requirement.extras), seen)


def vulnerable(package: Package, entry: dict[str, Any]) -> bool:
    """Whether an entry of osv.dev speaks of this package in this version."""
    for affected in entry.get("affected", ()):
        if canonical(affected.get("package", {}).get("name", "")) != package.name:
            continue
        if package.version in affected.get("versions", ()):
            return True
        for span in affected.get("ranges", ()):
            if span.get("type") == "ECOSYSTEM" and _within(package.version, span["events"]):
                return True
    return False


def _within(version: str, events: list[dict[str, str]]) -> bool:
    try:
        own, inside = Version(version), False
        for event in events:
            for kind, text in event.items():
                at = Version("0" if text == "0" else text)
                if kind == "introduced" and own >= at:
                    inside = True
                elif (kind == "fixed" and own >= at) or (kind == "last_affected" and own > at):
                    inside = False
    except InvalidVersion:
        return False
    return inside


def audit(found: list[Package], archive: Path) -> list[str]:
    """Return a line for each known vulnerability; print how old the list is."""
    lines, newest = [], ""
    names = {package.name: package for package in found}
    with zipfile.ZipFile(archive) as files:
        for file in files.namelist():
            entry = json.loads(files.read(file))
            newest = max(newest, entry.get("modified", ""))
            if entry.get("withdrawn"):
                continue
            about = {canonical(a.get("package", {}).get("name", "")) for a in
                     entry.get("affected", ())}  # fmt: skip
            for name in about & names.keys():
                if vulnerable(names[name], entry):
                    package = names[name]
                    lines.append(f"{name} {package.version}: {entry['id']} "
                                 f"{entry.get('summary', '')}".rstrip())  # fmt: skip
    print(f"held against {archive}, whose newest entry is of {newest or 'no date'}")
    return sorted(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--audit", type=Path, metavar="ZIP", help="osv.dev's all.zip for PyPI")
    options = parser.parse_args(arguments)
    found = packages()
    for package in found:
        print(f"{package.group:10s}{package.name:44s}{package.version:18s}{package.kind:15s}"
              f"{package.licence}")  # fmt: skip
    unknown = [package.name for package in found if package.kind == "unknown"]
    counts = {kind: sum(p.kind == kind for p in found) for kind in [*KNOWN, "unknown"]}
    print(f"{len(found)} packages: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    if unknown:
        print(f"licence unknown: {', '.join(unknown)}")
    weak = audit(found, options.audit) if options.audit else []
    for line in weak:
        print(f"vulnerable: {line}")
    if options.audit:
        print(f"{len(weak)} known vulnerabilities")
    return 1 if unknown or weak else 0


if __name__ == "__main__":
    sys.exit(main())
