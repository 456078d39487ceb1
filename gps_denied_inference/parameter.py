"""One row of the table of settings: a parameter's default, bounds, unit and description."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from gps_denied_inference.errors import InvalidParameterError, UnknownNameError

_TYPE_NAMES: dict[type, str] = {
    bool: "bool",
    int: "integer",
    float: "double",
    str: "string",
    tuple: "string_array",
    list: "string_array",
    type(None): "unset",
}
"""ROS's names of the types that a parameter's value comes in."""


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        name: ROS parameter name.
        default: its type (bool, int, float, str, a tuple of str) is the parameter's type.
        description: one sentence.
        unit: SI unit or "" where there is none.
        minimum, maximum: inclusive bounds of numbers.
        choices: the allowed strings, empty = any.
        dynamic: True = may be changed at any time and takes effect at once; False = only while
            the node is unconfigured.
    """

    name: str
    default: bool | int | float | str | tuple[str, ...]
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False

    @property
    def type_name(self) -> str:
        """The ROS name of the type: "bool", "integer", "double", "string" or "string_array"."""
        return _TYPE_NAMES[type(self.default)]

    @property
    def bound(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        kind = f"{'an' if self.type_name == 'integer' else 'a'} {self.type_name}"
        unit = f" {self.unit}" if self.unit else ""
        if self.minimum is not None and self.maximum is not None:
            return f"{kind} in [{self.minimum:g}, {self.maximum:g}]{unit}"
        if self.minimum is not None:
            return f"{kind} >= {self.minimum:g}{unit}"
        return kind

    def check(self, value: object) -> None:
        """Refuse a value of another type or outside the bounds.

        Raises:
            InvalidParameterError: names the parameter, the value and the bound; of a wrong type,
                also the type expected and the type given.
        """
        if isinstance(self.default, tuple):
            self._check_names(value)
            return
        if type(value) is not type(self.default):
            given = _TYPE_NAMES.get(type(value), type(value).__name__)
            raise InvalidParameterError(
                self.name, value, f"of type {self.type_name}, not {given}: {self.bound}"
            )
        if isinstance(value, str):
            if self.choices and value not in self.choices:
                raise InvalidParameterError(self.name, value, self.bound)
            return
        number = float(cast("float", value))
        if math.isnan(number):
            raise InvalidParameterError(self.name, value, self.bound)
        if self.minimum is not None and number < self.minimum:
            raise InvalidParameterError(self.name, value, self.bound)
        if self.maximum is not None and number > self.maximum:
            raise InvalidParameterError(self.name, value, self.bound)

    def _check_names(self, value: object) -> None:
        if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
            return
        given = _TYPE_NAMES.get(type(value), type(value).__name__)
        if given == self.type_name:
            given = "one of other things"
        raise InvalidParameterError(
            self.name, value, f"of type {self.type_name}, not {given}: {self.bound}"
        )

    def held(self, value: object) -> object:
        """Return a value that passed :meth:`check` as a dataclass of settings holds it."""
        return tuple(value) if isinstance(value, list) else value


class Table:
    """Base of the dataclasses of settings, each field of which is one row."""

    @classmethod
    def table(cls, documented: bool = False) -> tuple[Parameter, ...]:
        """Return the rows in their order of declaration.

        Args:
            documented: leave out choices that other packages bring, or that are for tests.
        """
        del documented
        return rows(cls)

    @classmethod
    def from_mapping(cls: type[T], values: Mapping[str, object]) -> T:
        """Check every value against its row, and what no single row can.

        Raises:
            UnknownNameError: a name that is no setting.
            InvalidParameterError: a value of the wrong type or out of bounds.
        """
        known = {row.name: row for row in cls.table()}
        for name, value in values.items():
            if name not in known:
                raise UnknownNameError("parameter", name, known)
            known[name].check(value)
        settings = cls(**{name: known[name].held(value) for name, value in values.items()})
        settings.validate()
        return settings

    def validate(self) -> None:
        """Check what no single row can: settings that depend on each other.

        Raises:
            InvalidParameterError: names the parameter, the value and the bound.
        """


T = TypeVar("T", bound=Table)


def setting(default: object, description: str, **details: Any) -> Any:
    """Declare a field of a dataclass of settings; ``details`` are those of :class:`Parameter`."""
    return dataclasses.field(
        default=default, metadata={"description": description, "details": details}
    )


def rows(settings: type) -> tuple[Parameter, ...]:
    """Return the table that a dataclass of settings is, in the order of declaration.

    A field whose type is a ``Literal`` takes its words alone.
    """
    kinds = get_type_hints(settings)
    return tuple(
        Parameter(
            name=field.name,
            default=cast("bool | int | float | str | tuple[str, ...]", field.default),
            description=field.metadata["description"],
            choices=get_args(kinds[field.name]) if get_origin(kinds[field.name]) is Literal else (),
            **field.metadata["details"],
        )
        for field in dataclasses.fields(settings)
    )
