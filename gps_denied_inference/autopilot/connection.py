"""MAVLink over UDP or a serial line, through pymavlink; the only module that imports it."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

from gps_denied_inference.errors import ConfigurationError

DIALECT = "ardupilotmega"
"""Holds common.xml, and with it what PX4 speaks, and ArduPilot's own messages."""
ONBOARD_COMPUTER = 18
"""MAV_TYPE_ONBOARD_CONTROLLER."""
VISUAL_ODOMETRY = 197
"""MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY."""
NO_AUTOPILOT = 8
"""MAV_AUTOPILOT_INVALID: what a component that is no autopilot says."""


class Connection:
    """One way to an autopilot.

    Args:
        url: ``"udp:0.0.0.0:14540"`` (wait for the autopilot there), ``"udpout:127.0.0.1:14550"``
            (send there first) or a serial device, ``"/dev/ttyTHS1"`` or ``"/dev/ttyACM0"``.
        baud: of a serial device.
        system, component: ours.

    Attributes:
        encoder: pymavlink's ``MAVLink``: makes messages.

    Raises:
        ConfigurationError: pymavlink is not installed, or the port cannot be opened.
    """

    def __init__(
        self, url: str, baud: int = 921_600, system: int = 1, component: int = VISUAL_ODOMETRY
    ) -> None:
        os.environ["MAVLINK20"] = "1"  # pymavlink reads it while it is imported
        try:
            from pymavlink import mavutil
        except ImportError as error:
            raise ConfigurationError(
                f"the autopilot link needs pymavlink ({error}): python3 -m pip install pymavlink"
            ) from error
        if not url:
            raise ConfigurationError("autopilot_url is empty: name a UDP address or serial device")
        try:
            self._port: Any = mavutil.mavlink_connection(
                url,
                baud=baud,
                source_system=system,
                source_component=component,
                dialect=DIALECT,
                autoreconnect=True,
                robust_parsing=True,
            )
        except ImportError as error:
            raise ConfigurationError(
                f"autopilot_url '{url}' is a serial device, which needs pyserial ({error}): "
                "python3 -m pip install pyserial"
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"autopilot_url '{url}' cannot be opened: {error}") from error
        self.url = url
        self.encoder: Any = self._port.mav
        self._sending = threading.Lock()
        self.sent = 0
        self.send_failures = 0
        self.received = 0
        self.malformed = 0

    @property
    def lost_packets(self) -> int:
        """Packets missing in the sequence numbers of what came."""
        return int(self._port.mav_loss)

    def receive(self, timeout: float) -> Any | None:
        """Return the next message, None where none came within ``timeout`` s or it was damaged."""
        try:
            message = self._port.recv_match(blocking=True, timeout=timeout)
        except (OSError, ValueError, TypeError, IndexError, UnicodeDecodeError):
            # pymavlink lets some damaged packets raise; the next one is another.
            self.malformed += 1
            return None
        if message is None:
            return None
        if message.get_type() == "BAD_DATA" or message.get_type().startswith("UNKNOWN"):
            self.malformed += 1
            return None
        self.received += 1
        return message

    def send(self, message: object) -> bool:
        """Send a message; return False where the port refused it."""
        with self._sending:
            try:
                self.encoder.send(message)
            except (OSError, ValueError):
                self.send_failures += 1
                return False
            self.sent += 1
        return True

    def heartbeat(self) -> None:
        """Say that this computer is there."""
        active = 4  # MAV_STATE_ACTIVE
        self.send(self.encoder.heartbeat_encode(ONBOARD_COMPUTER, NO_AUTOPILOT, 0, 0, active))

    def close(self) -> None:
        """Give the port back."""
        with contextlib.suppress(OSError):
            self._port.close()
