"""Ed25519 signatures of packed bundles (RFC 8032): 64 raw bytes in `NAME.tar.sig`, over every byte of the tar.

The signature lies beside the tar and not in it, so that it is checked before a single byte of the tar is parsed, and so
that a signed tar is the same file as before. openssl makes and checks the same ones:
`openssl pkeyutl -verify -pubin -inkey KEY.pub -rawin -in NAME.tar -sigfile NAME.tar.sig`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from toolkit.errors import BundleError, ToolkitError
from toolkit.files import os_errors, write_bytes
from toolkit.lazy import needs

SIGNATURE_BYTES = 64


def signature_path(tar: Path) -> Path:
    """`my-net.tar` has `my-net.tar.sig`."""
    return tar.with_name(f"{tar.name}.sig")


def new_key(private: Path) -> Path:
    """Makes a key pair: the private half as PEM (mode 0600, not encrypted), the public half beside it; returns that.

    Raises:
        ToolkitError: one of the files is there already. MissingPackage: `cryptography` is not installed.
    """
    with needs("make signing keys"):
        from cryptography.hazmat.primitives import serialization as kinds
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    public = private.with_suffix(".pub")
    if public == private:
        raise ToolkitError(f"{private} is what the public half would be called", fix="`key='NAME.pem'`")
    for path in (private, public):
        if path.exists():
            raise ToolkitError(f"{path} is there already", fix="choose another `key=`, or leave `new_key=` out")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(kinds.Encoding.PEM, kinds.PrivateFormat.PKCS8, kinds.NoEncryption())
    with os_errors(private):
        private.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os_errors(private), os.fdopen(handle, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
        write_bytes(public, key.public_key().public_bytes(kinds.Encoding.PEM, kinds.PublicFormat.SubjectPublicKeyInfo))
    except BaseException:  # a part of a key, or one half of it, is in the way of the next attempt
        private.unlink(missing_ok=True)
        raise
    return public


def sign(tar: Path, private: Path) -> Path:
    """Signs a tar's bytes and returns the signature's path.

    Raises:
        ToolkitError: no such file, or no ed25519 private key without a passphrase. MissingPackage.
    """
    with needs("sign bundles"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    key = _key(private, lambda pem: load_pem_private_key(pem, None), Ed25519PrivateKey, "private key")
    with os_errors(tar, "read"):
        data = tar.read_bytes()
    write_bytes(signature_path(tar), key.sign(data))
    return signature_path(tar)


def require_signature(tar: Path, public: Path) -> None:
    """Refuses a tar that the owner of a key did not sign; nothing in the tar is looked at.

    Raises:
        BundleError: no signature, or one of other bytes or another key. ToolkitError: no ed25519 public key.
        MissingPackage: `cryptography` is not installed.
    """
    with needs("check signatures"):
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    key = _key(public, load_pem_public_key, Ed25519PublicKey, "public key")
    if tar.is_dir():
        raise BundleError(
            f"{tar} is a folder, and only a packed bundle is signed",
            fix=f"pack the folder {tar}, then sign the tar",
        )
    path = signature_path(tar)
    if not path.is_file():
        raise BundleError(f"{tar} is not signed", found=f"no {path.name} beside it", fix="sign the tar")
    with os_errors(tar, "read"):
        data, signature = tar.read_bytes(), path.read_bytes()
    try:
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidSignature
        key.verify(signature, data)
    except InvalidSignature as error:
        raise BundleError(
            f"{path} is not the signature of {tar.name} by {public}",
            allowed="a tar whose bytes were signed with the private half of this key",
            fix="do not use it; get tar and signature again from their source",
        ) from error


def _key(path: Path, load: Any, kind: type, what: str) -> Any:
    with os_errors(path, "read"):
        pem = path.read_bytes()
    try:
        key = load(pem)
    except Exception as error:  # ValueError, TypeError (a passphrase), UnsupportedAlgorithm
        raise ToolkitError(
            f"{path} holds no {what} that can be used", found=str(error)[:120], allowed="ed25519 as PEM, no passphrase"
        ) from error
    if not isinstance(key, kind):
        raise ToolkitError(f"{path} holds another kind of key", found=type(key).__name__, allowed=f"an ed25519 {what}")
    return key
