"""The exception tree. Everything that this package raises on purpose derives from one class.

::

    GpsDeniedInferenceError
    ├── ConfigurationError              what the user asked for cannot be
    │   ├── InvalidParameterError       a value outside its type or bounds
    │   ├── UnknownNameError            no such runtime, architecture, model, source
    │   └── RegistrationError           a name registered twice with different factories
    ├── RuntimeUnavailableError         a runtime's library or device is not on this machine
    ├── ModelError
    │   ├── ModelNotFoundError          weights or graph are not on disk
    │   ├── ModelIntegrityError         wrong size or SHA-256, truncated file
    │   ├── ModelMismatchError          weights of another network
    │   └── FetchError                  could not be fetched (no network, not on the registry)
    ├── StorageError                    read-only folder, full disk, lock not to be had
    │   └── TooLargeError               a file larger than what it is read for can be
    ├── EngineError
    │   ├── EngineRejectedError         the gate refused it; carries machine-readable reasons
    │   ├── EngineBuildError            the vendor's builder failed
    │   ├── EngineLoadError             deserialising or warm-up failed
    │   ├── UnsupportedDeviceError      this engine or runtime cannot run on this device
    │   ├── ReadbackMismatchError       what runs is not what was asked for
    │   └── InvalidHandleError          foreign or released handle
    ├── InferenceError                  a forward pass failed
    │   ├── InputMismatchError          wrong tensor name, shape or dtype
    │   └── InvalidOutputError          the engine's answer is not what its specification says
    ├── DeviceOutOfMemoryError          from load or from infer
    ├── MapError                        a map file that is damaged, unfinished or of another kind
    ├── FrameError                      an image message that cannot be used; carries a reason
    └── ThermalReadError                a thermal source gave no valid reading

Foreign exceptions are mapped in one place per runtime and stay reachable through ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Iterable


class GpsDeniedInferenceError(Exception):
    """Base class of every error raised by this package; goes through processes as it is."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), str(self), vars(self))


def _restored(
    kind: type[GpsDeniedInferenceError], message: str, values: dict[str, object]
) -> GpsDeniedInferenceError:
    error = kind.__new__(kind)
    error.args = (message,)
    error.__dict__.update(values)
    return error


class ConfigurationError(GpsDeniedInferenceError):
    """What was asked for cannot be."""


class InvalidParameterError(ConfigurationError):
    """A parameter's value is outside its type or its bounds."""

    def __init__(self, name: str, value: object, bound: str) -> None:
        self.name = name
        self.value = value
        self.bound = bound
        super().__init__(f"parameter '{name}' = {value!r} is refused: must be {bound}")


class UnknownNameError(ConfigurationError):
    """A name that no registry knows."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        super().__init__(f"unknown {kind} '{name}': known are {', '.join(self.known) or 'none'}")


class RegistrationError(ConfigurationError):
    """A name was registered twice with different factories."""


class RuntimeUnavailableError(GpsDeniedInferenceError):
    """A runtime's library or device is not on this machine.

    Attributes:
        hint: the command or step that mends it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(f"{message}; {hint}" if hint else message)


class ModelError(GpsDeniedInferenceError):
    """Weights or a graph cannot be used."""


class ModelNotFoundError(ModelError):
    """The weights or graph are not on disk."""


class ModelIntegrityError(ModelError):
    """The file's size or SHA-256 is not the pinned one, or it is truncated."""


class ModelMismatchError(ModelError):
    """The weights belong to another network."""


class FetchError(ModelError):
    """The weights could not be fetched."""


class StorageError(GpsDeniedInferenceError):
    """A folder is not writable, the disk is full, or a lock could not be had."""


class TooLargeError(StorageError):
    """A file is larger than what it is read for can be."""


class EngineError(GpsDeniedInferenceError):
    """An engine cannot be built, trusted, loaded or used."""


class EngineRejectedError(EngineError):
    """The gate refused an engine before any byte of it was deserialised.

    Attributes:
        reasons: machine-readable reasons (see ``engines.gate``), at least one.
    """

    def __init__(self, message: str, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"{message} [{', '.join(self.reasons)}]")


class EngineBuildError(EngineError):
    """The vendor's builder failed."""


class EngineLoadError(EngineError):
    """Deserialising or warming up an engine failed."""


class UnsupportedDeviceError(EngineError):
    """This engine or runtime cannot run on this device."""


class ReadbackMismatchError(EngineError):
    """What really runs (provider, device, precision) is not what was asked for."""


class InvalidHandleError(EngineError):
    """The handle was made by another runtime, or was released."""


class InferenceError(GpsDeniedInferenceError):
    """A forward pass failed."""


class InferenceHungError(InferenceError):
    """A forward pass does not come back; its engine is given up."""


class InputMismatchError(InferenceError):
    """A tensor's name, shape or dtype is not the engine's."""


class InvalidOutputError(InferenceError):
    """An engine answered with what its specification excludes; nothing of it may be used."""


class DeviceOutOfMemoryError(GpsDeniedInferenceError):
    """The device has no memory left, while loading or while running."""


class MapError(GpsDeniedInferenceError):
    """A map file that cannot be used: damaged, unfinished, or made by or for something else."""


class FrameError(GpsDeniedInferenceError):
    """An image that cannot be used.

    Attributes:
        reason: one word for counters, e.g. ``"malformed"`` or ``"unknown_encoding"``.
    """

    def __init__(self, message: str, reason: str = "malformed") -> None:
        self.reason = reason
        super().__init__(message)


class ThermalReadError(GpsDeniedInferenceError):
    """A thermal source gave no valid reading."""


def one_line(error: BaseException) -> str:
    """Return what a library said on one line, without characters that a terminal would obey.

    Libraries quote what a damaged file holds.
    """
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())
