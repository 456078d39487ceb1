"""Registry of network architectures: a name, the code that makes the torch module, the code that
makes the ONNX graph.

Nothing is imported before it is asked for, so listing architectures needs neither torch nor onnx.
A new network is one file and one line here, or one call of :func:`register_architecture` from
anywhere else::

    register_architecture("mynet", "mine.net:load_module", graph="mine.net_graph:assemble")
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from gps_denied_inference.errors import RegistrationError, UnknownNameError

if TYPE_CHECKING:
    import onnx
    import torch

    from gps_denied_inference.runtimes.specs import BuildConfig, Model


class ArchitectureFactory(Protocol):
    """Makes the whole engine as one torch module in eval mode.

    ``forward`` takes the engine's inputs in the order of ``runtimes.contract`` and returns its
    outputs in order. ``half()`` and ``to(device)`` work: what must stay float32 stays so.
    """

    def __call__(self, model: Model, config: BuildConfig) -> torch.nn.Module:
        """Build the module and load ``model.weights``.

        Raises:
            ModelNotFoundError, ModelIntegrityError, ModelMismatchError.
        """
        ...


class GraphAssembler(Protocol):
    """Makes the static ONNX graph of an engine, without torch."""

    def __call__(
        self, network: onnx.ModelProto, model: Model, config: BuildConfig
    ) -> onnx.ModelProto:
        """Fix sizes, K, thresholds and precision.

        Args:
            network: the model's shipped or exported graph, with symbolic sizes.
            model: where the network came from.
            config: what the engine is fixed to.

        Returns:
            A graph with the inputs and outputs of ``runtimes.contract`` and static shapes.
        """
        ...


@dataclass(frozen=True)
class Architecture:
    """One registered architecture.

    Attributes:
        name: name in the registry, e.g. ``"xfeat"``.
        factory: an :class:`ArchitectureFactory` or where to find it, as ``"module:attribute"``.
        graph: a :class:`GraphAssembler` or where to find it; None where no graph can be made.
        network: a ``NetworkExport`` or where to find it (``models.export``).
        options: names in ``BuildConfig.options`` that it reads.
        batches: whether it follows ``BuildConfig.batch``; else that is always 1.
    """

    name: str
    factory: ArchitectureFactory | str
    graph: GraphAssembler | str | None = None
    network: Callable[..., Any] | str | None = None
    options: tuple[str, ...] = ()
    batches: bool = False

    def revision(self) -> str:
        """Return the hex SHA-256 over the source of what builds this architecture's engines.

        That is every Python file of the folders of factory and graph where they are packages of
        their own, else the module's file, and this package's shared builders.
        """
        files = {Path(__file__).with_name(f"{name}.py") for name in _SHARED}
        for reference in (self.factory, self.graph):
            files |= _sources(reference)
        digest = hashlib.sha256()
        for file in sorted(files):
            content = file.read_bytes()
            digest.update(f"{file.parent.name}/{file.name} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()

    def load_module(self, model: Model, config: BuildConfig) -> torch.nn.Module:
        """Build the torch module of ``model``. Imports torch. Raises as the factory does."""
        factory = cast(ArchitectureFactory, _load(self.factory))
        return factory(model, config)

    def assemble(
        self, network: onnx.ModelProto, model: Model, config: BuildConfig
    ) -> onnx.ModelProto:
        """Build the static ONNX graph of ``model``. Does not import torch.

        Raises:
            UnknownNameError: this architecture was registered without a graph.
        """
        if self.graph is None:
            raise UnknownNameError("ONNX graph of architecture", self.name, [])
        return cast(GraphAssembler, _load(self.graph))(network, model, config)

    def load_network(self) -> Any:
        """Return the exporter's description of the network. Imports torch.

        Raises:
            UnknownNameError: this architecture was registered without one.
        """
        if self.network is None:
            raise UnknownNameError("exportable network of architecture", self.name, [])
        return _load(self.network)


class ArchitectureRegistry:
    """Names and the architectures behind them."""

    def __init__(self) -> None:
        self._entries: dict[str, Architecture] = {}

    def register(self, architecture: Architecture) -> None:
        """Add an architecture; adding the same one twice is fine.

        Raises:
            RegistrationError: the name is taken by another architecture.
        """
        known = self._entries.setdefault(architecture.name, architecture)
        if _identity(known) != _identity(architecture):
            raise RegistrationError(
                f"architecture '{architecture.name}' is already registered with "
                f"{_identity(known)[0]}; choose another name"
            )

    def get(self, name: str) -> Architecture:
        """Return the architecture called ``name``.

        Raises:
            UnknownNameError: no such architecture.
        """
        if name not in self._entries:
            raise UnknownNameError("architecture", name, self._entries)
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """Return every registered name, sorted."""
        return tuple(sorted(self._entries))

    def __contains__(self, name: str) -> bool:
        return name in self._entries


_SHARED = ("graph_builder", "sampling", "specialise")
"""Modules here that every architecture's graph is made with."""


def _sources(reference: object) -> set[Path]:
    """Return the source files behind a callable or its path, without importing the module."""
    if reference is None:
        return set()
    name = reference.partition(":")[0] if isinstance(reference, str) else reference.__module__
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return set()
    file = Path(spec.origin)
    # Within a package, the folder belongs to the network; a top-level one may hold anything.
    own = name.count(".") > 1 and (file.parent / "__init__.py").is_file()
    return set(file.parent.glob("*.py")) if own else {file}


def _load(reference: object) -> Any:
    if not isinstance(reference, str):
        return reference
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _identity(architecture: Architecture) -> tuple[Any, ...]:
    """What makes two registrations the same: a callable and its dotted path are equal."""

    def key(reference: object) -> Any:
        name = getattr(reference, "__qualname__", "")
        if callable(reference) and name and "<" not in name:
            return f"{reference.__module__}:{name}"
        return reference

    parts = (architecture.factory, architecture.graph, architecture.network)
    return (*map(key, parts), architecture.options, architecture.batches)


default_registry = ArchitectureRegistry()
"""What the zoo, the runtimes and the exporter look names up in."""


def register_architecture(
    name: str,
    factory: ArchitectureFactory | str,
    *,
    graph: GraphAssembler | str | None = None,
    network: Callable[..., Any] | str | None = None,
    options: tuple[str, ...] = (),
    batches: bool = False,
    registry: ArchitectureRegistry = default_registry,
) -> None:
    """Register an architecture under ``name`` (see :class:`Architecture`).

    Raises:
        RegistrationError: the name is taken by another architecture.
    """
    registry.register(Architecture(name, factory, graph, network, options, batches))


def load_module(model: Model, config: BuildConfig) -> torch.nn.Module:
    """Build the torch module of ``model`` through the default registry. Imports torch.

    Raises:
        UnknownNameError, ModelNotFoundError, ModelIntegrityError, ModelMismatchError.
    """
    return default_registry.get(model.architecture).load_module(model, config)


_HERE = "gps_denied_inference.models"
register_architecture(
    "xfeat",
    f"{_HERE}.xfeat.network:load_module",
    graph=f"{_HERE}.xfeat.graph:assemble",
    network=f"{_HERE}.xfeat.network:EXPORT",
    batches=True,
)
register_architecture(
    "lighterglue",
    f"{_HERE}.lightglue.module:load_lighterglue",
    graph=f"{_HERE}.lightglue.graph:assemble_lightglue",
    network=f"{_HERE}.lightglue.module:LIGHTERGLUE_EXPORT",
    options=("match_threshold", "pruning"),
    batches=True,
)
register_architecture(
    "aliked",
    f"{_HERE}.aliked.network:load_module",
    graph=f"{_HERE}.aliked.graph:assemble",
    network=f"{_HERE}.aliked.network:EXPORT",
)
register_architecture(
    "aliked_lightglue",
    f"{_HERE}.lightglue.module:load_aliked_lightglue",
    graph=f"{_HERE}.lightglue.graph:assemble_lightglue",
    network=f"{_HERE}.lightglue.module:ALIKED_LIGHTGLUE_EXPORT",
    options=("match_threshold", "pruning"),
)
