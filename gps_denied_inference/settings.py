"""Every setting of the node and of offline replay, in one table.

:class:`Settings` is the table: each field is one ROS parameter of the same name, with its default,
bounds, unit and description. The ROS parameter declarations, ``config/inference.yaml`` and the
README's table are made from it, so they cannot drift apart.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from gps_denied_inference.images.choices import Color, DepthScaling
from gps_denied_inference.parameter import Parameter, rows, setting
from gps_denied_inference.runtimes import specs, table
from gps_denied_inference.runtimes.specs import AskedPrecision
from gps_denied_inference.settings_rules import SettingsRules
from gps_denied_inference.thermal import SourceName, policy

Task = Literal["extract", "track", "match", "localize"]
Pruning = Literal["auto", "off"]
GeometryModel = Literal["homography", "fundamental", "none"]
CloudLayout = Literal["vins_mono", "vins_fusion"]
ImageTransport = Literal["raw", "compressed"]
Reliability = Literal["reliable", "best_effort"]
EnginePolicy = Literal["load_only", "build_if_needed"]
SearchPriority = Literal["idle", "low"]
RecoveryPolicy = Literal["restart", "exit", "off"]

_SIDE: dict[str, Any] = {
    "unit": "px", "minimum": specs.MIN_IMAGE_SIDE, "maximum": specs.MAX_IMAGE_SIDE
}  # fmt: skip
_K: dict[str, Any] = {"minimum": 1, "maximum": specs.MAX_KEYPOINTS}
_THREADS: dict[str, Any] = {"minimum": 0, "maximum": specs.MAX_THREADS}
_ANGLE: dict[str, Any] = {"unit": "rad", "minimum": -3.2, "maximum": 3.2}
_CAP: dict[str, Any] = {"unit": "Hz", "minimum": 0.0, "maximum": policy.MAX_RATE}


@dataclass(frozen=True)
class Settings(SettingsRules):
    """All settings, valid by construction (:meth:`from_mapping` or :meth:`validate`)."""

    task: Task = setting(
        "extract",
        "What is published per frame: features alone, features with track ids and matches to the "
        "previous key frame, matches against a reference image, or tracks and positions on a map.",
    )
    camera_names: tuple[str, ...] = setting(
        ("",),
        "Cameras that share the engine, each with topics of its own: NAME/image, NAME/camera_info, "
        "~/NAME/features and so on. [''] = one camera, without a name in its topics.",
    )
    camera_tolerance: float = setting(
        0.005,
        "Frames of several cameras whose stamps are at most this far apart are of one instant; one "
        "that comes first waits this long for the others.",
        unit="s",
        minimum=0.0,
        maximum=1.0,
    )
    engine_batch: int = setting(
        0,
        "Images that the engine takes at a time, of as many cameras; 0 = of all cameras on a GPU, "
        "where that saves time, and one on a CPU or with a model that takes no more.",
        minimum=0,
        maximum=16,
    )
    runtime: str = setting(
        "auto",
        "Inference library. 'auto' takes the first that works (onnxruntime on CUDA, tensorrt, "
        "onnxruntime on the CPU) and publishes why others were passed over; any other value, a "
        "runtime of an installed package included, runs or configure fails. pytorch_fp16 and "
        "pytorch_fp32 are other names of pytorch with that precision.",
    )
    device: str = setting("auto", "'auto', 'cpu', 'cuda' or 'cuda:N'.")
    precision: AskedPrecision = setting(
        "auto",
        "Arithmetic of the network; 'auto' is fp16 on a GPU if the model has it, else fp32.",
    )
    model: str = setting("xfeat", "Feature extractor, a name from 'gdi models list'.")
    weights_file: str = setting(
        "", "Local checkpoint instead of the published weights; empty = the model's own."
    )
    matcher: str = setting(
        "mutual_nearest_neighbour",
        "Matcher for tasks 'track' and 'match', a name from 'gdi models list'.",
    )
    matcher_pruning: Pruning = setting(
        "auto",
        "'auto' lets LighterGlue leave unmatchable keypoints out of its later layers on a CPU, "
        "where that more than halves its time and costs a little accuracy; 'off' never does.",
    )
    image_width: int = setting(
        640,
        "Image width that the engine takes; frames of another size are brought to it with their "
        "aspect ratio kept, and the rest is padded.",
        **_SIDE,
    )
    image_height: int = setting(480, "Image height that the engine takes.", **_SIDE)
    color: Color = setting(
        "mono",
        "Channels given to the network: 'mono' or 'rgb'.",
    )
    max_keypoints: int = setting(1000, "Keypoints per frame at most (K).", **_K)
    detection_threshold: float = setting(
        0.05,
        "Detector heat below which no keypoint is reported.",
        minimum=specs.MIN_DETECTION_THRESHOLD,
        maximum=specs.MAX_DETECTION_THRESHOLD,
    )
    min_cosine: float = setting(
        0.0,
        "Mutual nearest neighbours less alike than this are no match; 0 = the network's own, from "
        "the table of models (XFeat 0.82, ALIKED 0.5).",
        minimum=0.0,
        maximum=1.0,
    )
    geometry: GeometryModel = setting(
        "homography",
        "Model that verifies matches: 'homography' (near-flat ground, high flight), "
        "'fundamental' (3D scene) or 'none'.",
    )
    geometry_threshold: float = setting(
        3.0, "Residual up to which a match is an inlier.", unit="px", minimum=0.1, maximum=50.0
    )
    max_followed_frames: int = setting(
        8,
        "Task 'track': frames in a row in which a track is followed in the image (optical flow) "
        "without being detected; 0 = detections alone.",
        minimum=0,
        maximum=1000,
    )
    detection_interval: int = setting(
        1,
        "Task 'track': the network sees every n-th frame; in those between, tracks are followed in "
        "the image alone, which takes a CPU a quarter of the time. 1 = every frame.",
        minimum=1,
        maximum=100,
    )
    reference_file: str = setting(
        "", "Task 'match': image file to match against; empty = wait for topic reference/image."
    )
    reference_angles: int = setting(
        1,
        "Task 'match': headings at which the reference is seen. XFeat takes about 30 degrees of "
        "turn between frame and reference; 8 covers any heading.",
        minimum=1,
        maximum=36,
    )
    reference_scale: float = setting(
        0.0,
        "Task 'match': px that the network sees per px of the reference; more than the engine "
        "holds is seen in overlapping tiles of its size. 0 = automatic: whole, and where that is "
        "another scale than the frames', at theirs too.",
        minimum=0.0,
        maximum=16.0,
    )
    cloud_layout: CloudLayout = setting(
        "vins_mono",
        "Channels of ~/feature_cloud: those that VINS-Mono or VINS-Fusion reads.",
    )
    cloud_max_points: int = setting(150, "Tracks in ~/feature_cloud at most.", **_K)
    image_transport: ImageTransport = setting(
        "raw",
        "'raw' subscribes image (sensor_msgs/Image), 'compressed' subscribes image/compressed "
        "(sensor_msgs/CompressedImage: JPEG, PNG, TIFF, BMP, WebP, PGM or PPM).",
    )
    result_reliability: Reliability = setting(
        "reliable",
        "QoS of features, matches and feature_cloud: 'reliable' (depth 10) or 'best_effort'.",
    )
    mono16_scaling: DepthScaling = setting(
        "percentile",
        "How 16-bit images (thermal cameras) become 8-bit: 'percentile' (1 % to 99 % of the "
        "frame), 'minmax' or 'full' (the whole range).",
    )
    max_image_pixels: int = setting(
        25_000_000,
        "Frames, reference images and image files of more pixels (width x height) are refused "
        "before they are decoded.",
        unit="px",
        minimum=1024,
        maximum=1_000_000_000,
    )
    engine_policy: EnginePolicy = setting(
        "build_if_needed",
        "'load_only' never builds (flight); 'build_if_needed' builds an engine that is missing.",
    )
    engine_cache_directory: str = setting(
        "", "Folder of prepared engines; empty = the user's cache folder."
    )
    require_signed_engines: bool = setting(
        False, "Refuse engines without a valid Ed25519 signature by engine_public_key."
    )
    engine_public_key: str = setting("", "PEM file of the Ed25519 public key for signed engines.")
    threads: int = setting(0, "CPU threads of the runtime, 0 = its default.", **_THREADS)
    cuda_graph: bool = setting(True, "Capture the forward pass into a CUDA graph (GPU only).")
    warmup_iterations: int = setting(
        3,
        "Forward passes before configure succeeds.",
        minimum=1,
        maximum=specs.MAX_WARMUP_ITERATIONS,
    )
    status_rate: float = setting(
        1.0, "Rate of ~/status and /diagnostics.", unit="Hz", minimum=0.1, maximum=50.0
    )
    stall_timeout: float = setting(
        2.0,
        "Without a frame for this long while active, diagnostics report a stalled camera.",
        unit="s",
        minimum=0.1,
        maximum=3600.0,
        dynamic=True,
    )
    infer_timeout: float = setting(
        1.5,
        "A forward pass that takes longer hangs: it is reported, and 'recovery' begins. 0 = never; "
        "raise it for a network that takes seconds on this computer.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
        dynamic=True,
    )
    infer_failure_limit: int = setting(
        10,
        "So many failed forward passes in a row, spoilt answers included, begin 'recovery'; "
        "0 = never.",
        minimum=0,
        maximum=100_000,
        dynamic=True,
    )
    recovery: RecoveryPolicy = setting(
        "restart",
        "After forward passes that hang or fail: 'restart' loads the engine anew, up to seven "
        "times, and ends the process with exit code 75 where that cannot help (a GPU that hangs); "
        "'exit' ends it at once, for respawn; 'off' only reports.",
        dynamic=True,
    )
    frame_rate_limit: float = setting(
        0.0,
        "Frames above this rate are dropped and counted; 0 = no limit.",
        unit="Hz",
        minimum=0.0,
        maximum=1000.0,
        dynamic=True,
    )
    per_frame_debug_log: bool = setting(
        False, "Log one DEBUG line with the latencies of every frame.", dynamic=True
    )
    map_file: str = setting(
        "", "Task 'localize': the map, made by 'gdi map prepare' with this model and color."
    )
    map_sigma: float = setting(
        0.0,
        "1-sigma accuracy of the map's own position along each axis, part of every covariance; "
        "0 = one pixel of its tiles, as a good orthophoto has. Satellite pictures are off by more: "
        "1.5 to 5 m.",
        unit="m",
        minimum=0.0,
        maximum=10000.0,
    )
    fix_rate: float = setting(
        2.0,
        "Frames looked for on the map at most; features and tracks do not wait for them.",
        unit="Hz",
        minimum=0.01,
        maximum=100.0,
    )
    localization_matcher: str = setting(
        "lighterglue", "Matcher between frame and map, a name from 'gdi models list'."
    )
    localization_threads: int = setting(
        1,
        "CPU threads of the search on the map, 0 = the runtime's default.",
        **_THREADS,
    )
    localization_priority: SearchPriority = setting(
        "idle",
        "Of the search on the map: 'idle' takes what processors have to spare, and no more, so "
        "that frames lose nothing; 'low' (niceness 10) goes on where other programs leave nothing, "
        "at the frames' cost. Linux; elsewhere both are low.",
    )
    prior_timeout: float = setting(
        1.0,
        "A prior (position, height, attitude) farther than this from the frame's stamp is not "
        "used.",
        unit="s",
        minimum=0.01,
        maximum=60.0,
    )
    height_sigma: float = setting(
        0.1,
        "Standard deviation of 'prior/height', as a share of the height.",
        minimum=0.001,
        maximum=1.0,
    )
    camera_mount_roll: float = setting(
        0.0,
        "Camera on the body, about its forward axis; all three 0: it looks straight down, the "
        "image's top ahead.",
        **_ANGLE,
    )
    camera_mount_pitch: float = setting(0.0, "About the body's left axis.", **_ANGLE)
    camera_mount_yaw: float = setting(0.0, "About the body's up axis.", **_ANGLE)
    map_frame: str = setting("map", "frame_id of ~/pose and ~/odometry: east, north, up.")
    base_frame: str = setting("base_link", "child_frame_id of ~/odometry.")
    thermal_source: SourceName = setting(
        "auto",
        "Where temperatures come from. 'auto' takes the first that answers (jtop, nvml, sysfs).",
    )
    thermal_rate: float = setting(
        1.0, "Rate of ~/thermal_state.", unit="Hz", minimum=0.1, maximum=20.0
    )
    thermal_sysfs_root: str = setting(
        "/", "Root of the sysfs tree (tests put a made-up tree here)."
    )
    thermal_replay_file: str = setting(
        "", "Recording of 'gdi thermal --record' for source 'replay'."
    )
    thermal_policy: bool = setting(
        True, "Act on the thermal level: cap the frame rate and reduce keypoints.", dynamic=True
    )
    thermal_dwell: float = setting(
        5.0,
        "Least time between two changes of what the policy commands.",
        unit="s",
        minimum=policy.MIN_DWELL,
        maximum=policy.MAX_DWELL,
    )
    thermal_warm_rate: float = setting(20.0, "Frame-rate cap at level WARM; 0 = none.", **_CAP)
    thermal_throttling_rate: float = setting(
        10.0,
        "Frame-rate cap at THROTTLING, at most that of WARM; 0 = none, where WARM has none either.",
        **_CAP,
    )
    thermal_critical_rate: float = setting(
        2.0,
        "Frame-rate cap at CRITICAL, at most those of WARM and THROTTLING; 0 = none, where neither "
        "has one.",
        **_CAP,
    )
    thermal_reduced_keypoints: int = setting(
        0,
        "K of a second engine, prepared at configure and used while the policy commands fewer "
        "keypoints; 0 = none is prepared.",
        minimum=0,
        maximum=specs.MAX_KEYPOINTS,
    )
    thermal_refuse_activation: bool = setting(
        False, "Refuse to activate while the level is CRITICAL."
    )

    @classmethod
    def table(cls, documented: bool = False) -> tuple[Parameter, ...]:
        """See :meth:`Table.table`; ``runtime`` takes its choices from the table of runtimes."""
        names = table.documented_names() if documented else table.runtime_names()
        return tuple(
            dataclasses.replace(row, choices=("auto", *names)) if row.name == "runtime" else row
            for row in rows(cls)
        )
