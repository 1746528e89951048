"""Ed25519 signatures of packed bundles (RFC 8032): 64 raw bytes in `NAME.tar.sig`, over every byte of the tar.

The signature lies beside the tar and not in it, so that it is checked before a single byte of the tar is parsed, and so
that a signed tar is the same file as before. openssl makes and checks the same ones:
`openssl pkeyutl -verify -pubin -inkey KEY.pub -rawin -in NAME.tar -sigfile NAME.tar.sig`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.errors import BundleError, ToolkitError
from toolkit.lazy import needs
from toolkit.storage.files import Content, content_of, write_bytes, write_new
from toolkit.storage.limits import KEY_BYTES

SIGNATURE_BYTES = 64


def signature_path(tar: Path) -> Path:
    """`my-net.tar` has `my-net.tar.sig`."""
    return tar.with_name(f"{tar.name}.sig")


def new_key(private: Path) -> Path:
    """Makes a key pair: the private half as PEM (mode 0600, not encrypted), the public half beside it; returns that.

    Both are on the disk under other names before the private half gets its own, and never replace a file. A private
    half that is alone, because the power went right then, is no new key: it gets its public half.

    Raises:
        ToolkitError: one of the files is there already. MissingPackage: `cryptography` is not installed.
    """
    with needs("make signing keys"):
        from cryptography.hazmat.primitives import serialization as kinds
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    public = private.with_suffix(".pub")
    if public == private:
        raise ToolkitError(f"{private} is what the public half would be called", fix="`key='NAME.pem'`")
    alone = private.exists() and not public.exists()
    for path in (public,) if alone else (private, public):
        if path.exists():
            raise ToolkitError(f"{path} is there already", fix="choose another `key=`, or leave `new_key=` out")
    key = _private_key(private) if alone else Ed25519PrivateKey.generate()
    pem = key.private_bytes(kinds.Encoding.PEM, kinds.PrivateFormat.PKCS8, kinds.NoEncryption())
    half = key.public_key().public_bytes(kinds.Encoding.PEM, kinds.PublicFormat.SubjectPublicKeyInfo)
    write_new({public: (half, 0o644)} if alone else {private: (pem, 0o600), public: (half, 0o644)})
    return public


def sign(tar: Content, private: Path) -> Path:
    """Signs a tar's bytes and returns the signature's path.

    Raises:
        ToolkitError: no ed25519 private key without a passphrase. MissingPackage: `cryptography` is not installed.
    """
    write_bytes(signature_path(tar.path), _private_key(private).sign(tar.data))
    return signature_path(tar.path)


def require_signature(tar: Content, public: Path) -> None:
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
    path = signature_path(tar.path)
    if not path.is_file():
        raise BundleError(f"{tar.path} is not signed", found=f"no {path.name} beside it", fix="sign the tar")
    signature = content_of(path, KEY_BYTES, BundleError).data
    try:
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidSignature
        key.verify(signature, tar.data)
    except InvalidSignature as error:
        raise BundleError(
            f"{path} is not the signature of {tar.name} by {public}",
            allowed="a tar whose bytes were signed with the private half of this key",
            fix="do not use it; get tar and signature again from their source",
        ) from error


def _private_key(path: Path) -> Any:
    with needs("sign bundles"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    return _key(path, lambda pem: load_pem_private_key(pem, None), Ed25519PrivateKey, "private key")


def _key(path: Path, load: Any, kind: type, what: str) -> Any:
    pem = content_of(path, KEY_BYTES).data
    try:
        key = load(pem)
    except Exception as error:  # ValueError, TypeError (a passphrase), UnsupportedAlgorithm
        raise ToolkitError(
            f"{path} holds no {what} that can be used", found=str(error)[:120], allowed="ed25519 as PEM, no passphrase"
        ) from error
    if not isinstance(key, kind):
        raise ToolkitError(f"{path} holds another kind of key", found=type(key).__name__, allowed=f"an ed25519 {what}")
    return key
