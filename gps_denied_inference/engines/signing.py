"""Ed25519 signatures over engine manifests.

The signature covers the whole manifest, and with it the engine's SHA-256. Keys are PEM files
(PKCS #8 private, SubjectPublicKeyInfo public), as ``openssl genpkey -algorithm ed25519`` writes
them. Needs the ``cryptography`` library, and only where signatures are used.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.manifest import EngineManifest, manifest_path
from gps_denied_inference.errors import (
    EngineRejectedError,
    InvalidParameterError,
    RuntimeUnavailableError,
    StorageError,
)
from gps_denied_inference.storage.files import MAX_ENGINE_BYTES, MAX_KEY_BYTES, read_regular
from gps_denied_inference.storage.writing import write_file, write_new_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_HINT = "install it with 'pip install cryptography' or 'apt install python3-cryptography'"


def generate_keys(private_key: Path, public_key: Path) -> str:
    """Write a new key pair (the private one readable by its owner only); return its id.

    Raises:
        StorageError: a file exists already or cannot be written.
    """
    _require_library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_new_file(private_key, secret, "the private key", 0o600)
    try:
        write_new_file(public_key, public, "the public key", 0o644)
    except StorageError:
        private_key.unlink(missing_ok=True)
        raise
    return key_id(key.public_key())


def key_id(key: Ed25519PublicKey) -> str:
    """Return the hex SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def load_public_key(path: Path, parameter: str = "engine_public_key") -> Ed25519PublicKey:
    """Read a public key; ``parameter`` is what the user named it with.

    Raises:
        InvalidParameterError: unreadable, or no Ed25519 public key in PEM.
        RuntimeUnavailableError: ``cryptography`` is not installed.
    """
    _require_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(read_regular(path, MAX_KEY_BYTES))
    except (StorageError, ValueError, UnsupportedAlgorithm) as error:
        raise InvalidParameterError(
            parameter, str(path), f"a readable Ed25519 public key in PEM ({error})"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidParameterError(parameter, str(path), "an Ed25519 public key in PEM")
    return key


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read an unencrypted private key.

    Raises:
        InvalidParameterError: unreadable, or no Ed25519 private key in PEM.
        RuntimeUnavailableError: ``cryptography`` is not installed.
    """
    _require_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(read_regular(path, MAX_KEY_BYTES), password=None)
    except (StorageError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidParameterError(
            "private_key", str(path), f"a readable Ed25519 private key in PEM ({error})"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidParameterError("private_key", str(path), "an Ed25519 private key in PEM")
    return key


def sign(artifact: Path, key: Ed25519PrivateKey) -> EngineManifest:
    """Sign the manifest beside an engine, after checking that it describes this engine.

    Raises:
        EngineRejectedError: engine or manifest is missing or damaged; it is not signed then.
        StorageError: the manifest cannot be written.
    """
    path = manifest_path(artifact)
    try:
        data = read_regular(artifact, MAX_ENGINE_BYTES)
    except StorageError as error:
        raise EngineRejectedError(f"engine: {error}", [reasons.MISSING_ARTIFACT]) from error
    manifest = EngineManifest.read(artifact)
    if hashlib.sha256(data).hexdigest() != manifest.artifact_sha256:
        raise EngineRejectedError(
            f"engine {artifact} is not the one its manifest describes: compile it again",
            [reasons.HASH],
        )
    signature = key.sign(manifest.signed_bytes())
    signed = dataclasses.replace(
        manifest,
        signer=key_id(key.public_key()),
        signature=base64.b64encode(signature).decode("ascii"),
    )
    write_file(path, signed.to_json(), "the signed manifest")
    return signed


def verify(manifest: EngineManifest, key: Ed25519PublicKey) -> bool:
    """Return whether ``key`` signed this manifest as it stands."""
    from cryptography.exceptions import InvalidSignature

    if manifest.signer != key_id(key):
        return False
    try:
        key.verify(base64.b64decode(manifest.signature, validate=True), manifest.signed_bytes())
    except (InvalidSignature, ValueError):
        return False
    return True


def _require_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise RuntimeUnavailableError("signatures need the cryptography library", _HINT) from error
