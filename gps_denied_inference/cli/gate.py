"""``gdi gate``: may this engine run on this machine, and if not, why."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gps_denied_inference.engines.gate import RunningMachine
    from gps_denied_inference.engines.manifest import EngineManifest

HELP = (
    "Check an engine against its manifest and this machine, without loading it. Exit code 0: "
    "accepted; 1: refused, with the reasons."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="engine file or its folder")
    parser.add_argument("--device", metavar="cuda:N", help="the GPU, where there are several")
    parser.add_argument("--public-key", type=Path, metavar="FILE", help="PEM, the trusted key")
    parser.add_argument("--require-signature", action="store_true", help="refuse unsigned engines")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")


def run(args: argparse.Namespace) -> int:
    """Print the decision; the exit code is the answer."""
    from gps_denied_inference.cli.compile import manifest_report
    from gps_denied_inference.engines.gate import EngineGate
    from gps_denied_inference.storage.documents import write_json

    artifact = engine_file(args.engine)
    gate = EngineGate(args.require_signature, args.public_key, "--public-key")
    machine, note = _machine(artifact, args.device)
    decision = gate.check(artifact, machine)
    print(decision.message)
    if not decision.accepted:
        print(f"reasons: {', '.join(decision.reasons)}")
    if note:
        print(f"note: {note}")
    if args.json:
        write_json(
            args.json,
            {
                "engine": artifact,
                "accepted": decision.accepted,
                "reasons": decision.reasons,
                "message": decision.message,
                "note": note,
                "machine": dict(vars(machine)),
                "manifest": manifest_report(decision.manifest.to_json())
                if decision.manifest
                else None,
            },
        )
    return 0 if decision.accepted else 1


def engine_file(path: Path) -> Path:
    """Return the engine in a folder of the cache, or the file itself."""
    if path.is_dir():
        inside = sorted(
            entry
            for entry in path.glob("engine.*")
            if entry.is_file() and not entry.name.endswith(".manifest.json")
        )
        if inside:
            return inside[0]
    return path


def _machine(artifact: Path, device: str | None) -> tuple[RunningMachine, str]:
    """Return what would run the engine here, and why nothing could where that is so."""
    from gps_denied_inference.engines.gate import RunningMachine
    from gps_denied_inference.errors import (
        ConfigurationError,
        EngineRejectedError,
        RuntimeUnavailableError,
    )

    manifest = _manifest(artifact)
    if manifest is None:
        return RunningMachine("none", "", "", "", "fp32"), ""
    try:
        return _ask_runtime(manifest, device)
    except (RuntimeUnavailableError, ConfigurationError, EngineRejectedError) as error:
        return RunningMachine("none", "", "", "", manifest.precision), str(error)


def _ask_runtime(manifest: EngineManifest, device: str | None) -> tuple[RunningMachine, str]:
    from gps_denied_inference.engines.manifest import TARGET_OPTION
    from gps_denied_inference.errors import UnknownNameError
    from gps_denied_inference.runtimes import create_runtime, runtime_names
    from gps_denied_inference.runtimes.gpus import survey

    options = {}
    if manifest.runtime_id == "onnxruntime":
        options["provider"] = manifest.builder_flags.get("provider")
    runtime = create_runtime(manifest.runtime_id, **options)
    ask = getattr(runtime, "running_machine", None)
    if ask is None:
        raise UnknownNameError("engine runtime", manifest.runtime_id, runtime_names())
    config = manifest.build_config(device)
    note = ""
    if manifest.runtime_id == "tensorrt" and not survey().gpus:
        # Engines may be built where no GPU is, and are checked there before they are shipped.
        note = "no GPU here: checked for the GPU that its manifest names; it does not load here"
        target = {TARGET_OPTION: manifest.compute_capability}
        config = dataclasses.replace(config, options={**config.options, **target})
    machine: RunningMachine = ask(config)
    return machine, note


def _manifest(artifact: Path) -> EngineManifest | None:
    from gps_denied_inference.engines.manifest import EngineManifest
    from gps_denied_inference.errors import EngineRejectedError

    try:
        return EngineManifest.read(artifact)
    except EngineRejectedError:
        return None  # the gate says why
