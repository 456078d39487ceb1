"""``gdi sign``: Ed25519 signatures for engines, and the keys for them."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = (
    "Sign engines, so that a node with require_signed_engines accepts them. Make a key pair once "
    "with --new-key, keep the private key off the aircraft, and give the node the public one."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "engines", nargs="*", type=Path, metavar="ENGINE", help="engine files or their folders"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--key", type=Path, metavar="FILE", help="PEM, the private key to sign with")
    what.add_argument(
        "--new-key",
        type=Path,
        metavar="FILE",
        help="write a new private key here; never overwrites",
    )
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="FILE",
        help="with --new-key: where its public half goes; default: the same name with .pub",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")


def run(args: argparse.Namespace) -> int:
    """Make a key pair, or sign."""
    from gps_denied_inference.cli.gate import engine_file
    from gps_denied_inference.engines import signing
    from gps_denied_inference.errors import InvalidParameterError
    from gps_denied_inference.storage.documents import write_json

    report: dict[str, object]
    if args.new_key is not None:
        if args.engines:
            raise InvalidParameterError("ENGINE", str(args.engines[0]), "absent with --new-key")
        public = args.public_key or args.new_key.with_name(args.new_key.name + ".pub")
        identity = signing.generate_keys(args.new_key, public)
        print(f"private key {args.new_key}: keep it secret, and off the aircraft")
        print(f"public key  {public}, id {identity}")
        report = {"private_key": args.new_key, "public_key": public, "id": identity}
    else:
        if not args.engines:
            raise InvalidParameterError("ENGINE", "", "given: at least one engine to sign")
        key = signing.load_private_key(args.key)
        signed = []
        for engine in args.engines:
            artifact = engine_file(engine)
            manifest = signing.sign(artifact, key)
            print(f"signed {artifact} with key {manifest.signer}")
            signed.append({"engine": artifact, "sha256": manifest.artifact_sha256})
        report = {"id": signing.key_id(key.public_key()), "signed": signed}
    if args.json:
        write_json(args.json, report)
    return 0
