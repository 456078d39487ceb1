"""Declares the table of :class:`~gps_denied_inference.settings.Settings` as ROS parameters."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from gps_denied_inference.errors import ConfigurationError, InvalidParameterError
from gps_denied_inference.node.rclpy_compat import parameter_overrides
from gps_denied_inference.parameter import Parameter
from gps_denied_inference.settings import Settings


def descriptor(row: Parameter) -> ParameterDescriptor:
    """Return what ``ros2 param describe`` shows of one row."""
    result = ParameterDescriptor(name=row.name, description=row.description)
    constraints = [row.bound, "any time" if row.dynamic else "only while unconfigured"]
    result.additional_constraints = "; ".join(constraints)
    if row.minimum is not None and row.maximum is not None:
        if row.type_name == "integer":
            span = IntegerRange(from_value=int(row.minimum), to_value=int(row.maximum), step=0)
            result.integer_range = [span]
        elif row.type_name == "double":
            span = FloatingPointRange(from_value=row.minimum, to_value=row.maximum, step=0.0)
            result.floating_point_range = [span]
    return result


def _wrong_type(row: Parameter, value: object) -> InvalidParameterError | None:
    if type(value) is not type(row.default) or isinstance(value, tuple):
        try:
            row.check(value)
        except InvalidParameterError as error:
            return error
    return None


class NodeParameters:
    """The node's parameters: declared, checked when set, read as one :class:`Settings`.

    A value from a parameter file that is refused does not keep the node from starting: it is
    remembered, and configure fails naming it until it is set to a valid one.

    Args:
        node: the node that owns the parameters.
        is_configured: True while an engine is loaded, when only dynamic parameters may change.
        on_change: called with the new settings after a dynamic parameter was set.
    """

    def __init__(
        self,
        node: Node,
        is_configured: Callable[[], bool],
        on_change: Callable[[Settings], None],
    ) -> None:
        self._node = node
        self._is_configured = is_configured
        self._on_change = on_change
        self._rows = {row.name: row for row in Settings.table()}
        self._refused: dict[str, InvalidParameterError] = {}
        for row in self._rows.values():
            self._declare(row)
        node.add_on_set_parameters_callback(self._check)

    def _declare(self, row: Parameter) -> None:
        try:
            declared = self._node.declare_parameter(row.name, row.default, descriptor(row))
            if declared.value is None and isinstance(row.default, tuple):
                # An empty list in a parameter file has no type, and says that there is none.
                self._node.undeclare_parameter(row.name)
                self._declare_default(row)
                return
            row.check(declared.value)
        except InvalidParameterError as error:
            self._refused[row.name] = error
            self._node.undeclare_parameter(row.name)
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            override = parameter_overrides(self._node)[row.name].value
            refusal = _wrong_type(row, override) or InvalidParameterError(
                row.name, override, row.bound
            )
            refusal.__cause__ = error
            self._refused[row.name] = refusal
        if row.name in self._refused:
            self._declare_default(row)

    def _declare_default(self, row: Parameter) -> None:
        self._node.declare_parameter(row.name, row.default, descriptor(row), ignore_override=True)

    def unknown_overrides(self) -> list[str]:
        """Return a line for each parameter that was given and that nothing reads.

        ``qos_overrides`` are declared with their topics, so this is asked once all are there.
        """
        lines = []
        for name in sorted(parameter_overrides(self._node)):
            if self._node.has_parameter(name):
                continue
            if name.startswith("qos_overrides."):
                hint = "the node has no such topic or policy with these parameters"
            else:
                near = difflib.get_close_matches(name, self._rows, 1)
                hint = f"is '{near[0]}' meant?" if near else "docs/parameters.md lists all"
            lines.append(f"parameter '{name}' is unknown and has no effect: {hint}")
        return lines

    def changed(self, parameters: Sequence[RosParameter[Any]]) -> list[RosParameter[Any]]:
        """Return those of ``parameters`` that would change something."""

        def as_it_is(asked: RosParameter[Any]) -> bool:
            if asked.name in self._refused or not self._node.has_parameter(asked.name):
                return False
            held = self._node.get_parameter(asked.name)
            return bool((held.type_, held.value) == (asked.type_, asked.value))

        return [parameter for parameter in parameters if not as_it_is(parameter)]

    def refuse_wrong_types(
        self, parameters: Sequence[RosParameter[Any]]
    ) -> SetParametersResult | None:
        """Return a refusal that names the first value of a wrong type; None when there is none.

        rclpy checks the type before any callback may, and its refusal does not name the parameter.
        """
        for parameter in parameters:
            row = self._rows.get(parameter.name)
            refusal = _wrong_type(row, parameter.value) if row is not None else None
            if refusal is not None:
                return SetParametersResult(successful=False, reason=str(refusal))
        return None

    def _check(self, parameters: list[RosParameter[Any]]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if p.name in self._rows}
        try:
            for name, value in changes.items():
                self._rows[name].check(value)
                if not self._rows[name].dynamic and self._is_configured():
                    raise ConfigurationError(
                        f"parameter '{name}' can be set only while the node is unconfigured: "
                        "request cleanup first"
                    )
            settings = None
            if self._is_configured() and changes:
                settings = Settings.from_mapping(dataclasses.asdict(self._raw()) | changes)
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name in changes:
            self._refused.pop(name, None)
        if settings is not None:
            self._on_change(settings)
        return SetParametersResult(successful=True)

    def _raw(self) -> Settings:
        return Settings(
            **{
                name: row.held(self._node.get_parameter(name).value)
                for name, row in self._rows.items()
            }  # type: ignore[arg-type]
        )

    def read(self) -> Settings:
        """Return the current values.

        Raises:
            InvalidParameterError: the first value that was refused, or that does not go with
                another.
        """
        for error in self._refused.values():
            raise error
        settings = self._raw()
        settings.validate()
        return settings
