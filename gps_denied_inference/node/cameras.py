"""The cameras of a configured node: what each sends, what becomes of it, what is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from std_msgs.msg import Header

from gps_denied_inference.msg import CameraStatus
from gps_denied_inference.node.frame_worker import FrameWorker
from gps_denied_inference.node.inputs import FrameInputs
from gps_denied_inference.node.outputs import ResultPublishers
from gps_denied_inference.node.status import camera_status
from gps_denied_inference.node.task_watch import TaskWatch
from gps_denied_inference.pipeline.accounting import FrameAccounting
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.task_health import Finding
from gps_denied_inference.session import FrameResult, InferenceSession
from gps_denied_inference.settings import Settings

OnResult = Callable[[npt.NDArray[np.uint8], FrameResult, Header, CameraModel | None], None]


class Camera:
    """One camera; what the worker needs of it is ``name``, ``accounting``, decode and publish.

    Args:
        node: the lifecycle node.
        settings: valid settings.
        name: of ``camera_names``; empty = the only one, without a name in its topics.
        accounting: counts its frames.

    Attributes:
        on_result: told of every answered frame after it is published; None = nobody is.
    """

    def __init__(
        self, node: Any, settings: Settings, name: str, accounting: FrameAccounting
    ) -> None:
        self.name = name
        self.accounting = accounting
        self.outputs = ResultPublishers(node, settings, name)
        self.inputs = FrameInputs(node, settings, name)
        self.watch = TaskWatch(node, name)
        self.on_result: OnResult | None = None

    def decode(self, message: Any) -> npt.NDArray[np.uint8]:
        """Convert a message to what the engine takes. Raises FrameError."""
        return self.inputs.decode(message)

    def publish(self, image: npt.NDArray[np.uint8], result: FrameResult, header: Header) -> None:
        """Publish one frame's answer."""
        model = self.inputs.camera_model
        self.outputs.publish(image, result, header, model, self.inputs.calibration_missing)
        if self.on_result is not None:
            self.on_result(image, result, header, model)

    def destroy(self) -> None:
        """Give everything back."""
        self.outputs.destroy()
        self.inputs.destroy()


class Cameras:
    """All cameras of a node, in the order of ``settings.cameras``.

    Args:
        node: the lifecycle node.
        settings: valid settings.
        accounts: of each camera, by its name.
    """

    def __init__(
        self, node: Any, settings: Settings, accounts: Mapping[str, FrameAccounting]
    ) -> None:
        self._settings = settings
        self.all: tuple[Camera, ...] = ()
        try:
            for name in settings.cameras:
                self.all += (Camera(node, settings, name, accounts[name]),)
        except BaseException:
            self.destroy()
            raise

    def subscribe(self, worker: FrameWorker) -> None:
        """Hand frames to ``worker`` from now on, and expect results."""
        for place, camera in enumerate(self.all):
            camera.inputs.subscribe(worker, place)
            camera.watch.begin()

    def unsubscribe(self) -> None:
        """Take no more frames and expect nothing."""
        for camera in self.all:
            camera.watch.end()
            camera.inputs.unsubscribe()

    def look(
        self,
        session: InferenceSession | None,
        worker: FrameWorker | None,
        stall_timeout: float,
    ) -> tuple[list[CameraStatus], list[Finding | None]]:
        """Return each camera's status, and why no frame of it comes, where that is so.

        Args:
            session, worker: the node's.
            stall_timeout: s without a frame from which that is a fault.
        """
        statuses: list[CameraStatus] = []
        silences: list[Finding | None] = []
        streams = session.streams if session is not None else ()
        for place, camera in enumerate(self.all):
            account = camera.accounting.snapshot()
            stream = streams[place] if place < len(streams) else None
            finding, silent = camera.watch.look(
                self._settings.task,
                stream,
                camera.inputs,
                camera.outputs,
                worker is not None and worker.reference_waits(place),
                account,
                stall_timeout,
            )
            described = stream.reference_described if stream is not None else ""
            statuses.append(camera_status(camera.name, account, finding, described))
            silences.append(silent)
        return statuses, silences

    def destroy(self) -> None:
        """Give everything back."""
        for camera in self.all:
            camera.destroy()
