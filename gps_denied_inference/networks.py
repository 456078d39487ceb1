"""The engines that a set of settings asks for: chosen, gated or built, loaded, given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gps_denied_inference import host_threads
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.gate import EngineGate
from gps_denied_inference.errors import ConfigurationError, InvalidParameterError, UnknownNameError
from gps_denied_inference.models import zoo
from gps_denied_inference.models.registry import default_registry
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.matcher import (
    EngineMatcher,
    MutualNearestNeighbour,
    SeveralMatcher,
)
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig, EngineHandle, Progress
from gps_denied_inference.runtimes.selection import select
from gps_denied_inference.runtimes.table import find
from gps_denied_inference.settings import Settings
from gps_denied_inference.storage.files import user_path

if TYPE_CHECKING:
    from gps_denied_inference.thermal.state import ThermalState

IN_PROCESS_MATCHER = MutualNearestNeighbour.name
"""Runs as one matrix product in numpy: on a CPU that beats a round trip through an engine."""


class Networks:
    """One runtime and the engines loaded on it.

    Not thread-safe. Numpy's products are kept to one thread while it is open: its idle threads spin
    on the cores that the forward pass needs. What the user's environment says of them stays.

    Args:
        settings: valid settings.
        progress: told what is being prepared.
        thermal_source: handed to the runtime's ``thermal_state``.

    Attributes:
        selection: the runtime, device and precision that were chosen.
        handles: the loaded engines, in the order of loading.

    Raises:
        GpsDeniedInferenceError: the runtime cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        progress: Progress | None = None,
        thermal_source: Callable[[], ThermalState] | None = None,
    ) -> None:
        self.settings = settings
        self.handles: list[EngineHandle] = []
        self._progress = progress or (lambda share, what: None)
        precisions = zoo.get(settings.model).precisions
        self.selection = select(
            settings.runtime, settings.device, settings.precision, precisions=precisions
        )
        folder, key = settings.engine_cache_directory, settings.engine_public_key
        self._runtime = create_runtime(
            self.selection.runtime,
            cache=EngineCache(user_path(folder, "engine_cache_directory") if folder else None),
            gate=EngineGate(
                require_signature=settings.require_signed_engines,
                public_key=user_path(key, "engine_public_key") if key else None,
            ),
            policy=settings.engine_policy,
            thermal_source=thermal_source,
        )
        host_threads.hold()
        self._holds_threads = True

    @property
    def batch(self) -> int:
        """Images that the extractor takes at a time: parameter ``engine_batch``.

        Raises:
            InvalidParameterError: the model takes one at a time only.
        """
        settings = self.settings
        batches = _batches(settings.model)
        if settings.engine_batch == 0:
            on_gpu = self.selection.device.startswith("cuda")
            return len(settings.cameras) if on_gpu and batches else 1
        if settings.engine_batch > 1 and not batches:
            raise InvalidParameterError(
                "engine_batch", settings.engine_batch, f"0 or 1 with model '{settings.model}'"
            )
        return settings.engine_batch

    def extractor(
        self,
        max_keypoints: int,
        width: int | None = None,
        height: int | None = None,
        batch: int = 1,
    ) -> Extractor:
        """Load the extractor.

        Args:
            max_keypoints: K.
            width, height: px of its image; None = the settings'.
            batch: images that it takes at a time.

        Raises:
            GpsDeniedInferenceError: the engine cannot be had.
        """
        settings = self.settings
        size = (width or settings.image_width, height or settings.image_height)
        handle = self._load(settings.model, "extractor", max_keypoints, size, batch)
        return Extractor(self._runtime, handle)

    def matcher(self, name: str, max_keypoints: int, batch: int = 1) -> SeveralMatcher:
        """Load a matcher for the extractor's features.

        Args:
            name: of the zoo, or ``IN_PROCESS_MATCHER``.
            max_keypoints: K.
            batch: pairs that it takes at a time on a GPU, where the network can; on a CPU, which
                gains nothing by it, and in process it takes one.

        Raises:
            UnknownNameError: there is no such matcher.
            ConfigurationError: it was trained for another extractor.
            GpsDeniedInferenceError: the engine cannot be had.
        """
        settings = self.settings
        if name == IN_PROCESS_MATCHER:
            own = zoo.get(settings.model).min_cosine
            return MutualNearestNeighbour(min_cosine=settings.min_cosine or own)
        try:
            partners = zoo.get(name).trained_for
        except UnknownNameError:
            known = [each for each in zoo.names() if zoo.get(each).kind == "matcher"]
            raise UnknownNameError("matcher", name, [IN_PROCESS_MATCHER, *known]) from None
        if partners and settings.model not in partners:
            raise ConfigurationError(
                f"matcher '{name}' was trained for {' and '.join(partners)}, not for model "
                f"'{settings.model}': choose another matcher ('gdi models list')"
            )
        size = (settings.image_width, settings.image_height)
        if not (self.selection.device.startswith("cuda") and _batches(name)):
            batch = 1
        handle = self._load(name, "matcher", max_keypoints, size, batch)
        return EngineMatcher(self._runtime, handle)

    def _load(
        self, name: str, kind: str, max_keypoints: int, size: tuple[int, int], batch: int = 1
    ) -> EngineHandle:
        settings, selection = self.settings, self.selection
        own = settings.weights_file if kind == "extractor" else ""
        model = zoo.resolve(
            name,
            weights=user_path(own, "weights_file") if own else None,
            need_weights=find(selection.runtime)[0].needs_weights,
        )
        if model.kind != kind:
            raise ConfigurationError(
                f"model '{model.name}' is a {model.kind}, but parameter "
                f"'{'model' if kind == 'extractor' else 'matcher'}' needs a {kind}"
            )
        self._progress(0.0, f"preparing {model.name} for {selection.runtime}")
        # What is the default is not said: 'gdi compile' makes the same engine.
        told = kind == "matcher" and settings.matcher_pruning != "auto"
        config = BuildConfig(
            height=size[1],
            width=size[0],
            channels=1 if settings.color == "mono" else 3,
            max_keypoints=max_keypoints,
            detection_threshold=settings.detection_threshold,
            precision=selection.precision,
            device=selection.device,
            warmup_iterations=settings.warmup_iterations,
            threads=settings.threads,
            cuda_graph=settings.cuda_graph,
            batch=batch,
            options={"pruning": settings.matcher_pruning} if told else {},
        )
        entry = self._runtime.compile_engine(model, config, self._progress)
        self._progress(0.9, f"loading {model.name}")
        handle = self._runtime.deserialize_engine(entry)
        self.handles.append(handle)
        return handle

    @property
    def running_since(self) -> float | None:
        """Monotonic s at which the forward pass that runs now began; None = none runs."""
        return min(
            (h.running_since for h in self.handles if h.running_since is not None), default=None
        )

    def close(self) -> None:
        """Give every engine back. May be called more than once."""
        handles, self.handles = self.handles, []
        for handle in reversed(handles):
            self._runtime.release_engine(handle)
        if self._holds_threads:
            self._holds_threads = False
            host_threads.let_go()


def _batches(model: str) -> bool:
    """Tell whether a model of the zoo takes several images, or pairs of sets, at a time."""
    architecture = zoo.get(model).architecture
    return architecture in default_registry and default_registry.get(architecture).batches
