"""Ed25519 signatures of packed bundles (RFC 8032): `NAME.tar.sig` says which tar, whose key, which version and when.

It is text: six lines, which are signed, and the signature of them in hex. It lies beside the tar and not in it, so that
it is checked before a single byte of the tar is parsed, and so that a signed tar is the same file as before. The
manifest has a line too, by which a folder that the tar was unpacked to is known as signed. Earlier versions wrote 64
raw bytes over the tar, which are still read; they say neither version nor date, and nothing of a folder.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from toolkit.errors import BundleError, ToolkitError
from toolkit.lazy import needs
from toolkit.storage.documents import Document
from toolkit.storage.files import Content, content_of, write_bytes, write_new
from toolkit.storage.hints import Count
from toolkit.storage.limits import KEY_BYTES
from toolkit.storage.parts import sweep
from toolkit.storage.replacing import require_replaceable

RAW_BYTES = 64  # of the signature itself; a file of so many is of the first format
MOST_VERSION = 10**9
SIGNED = re.compile(
    rb"toolkit signature 2\ntar ([0-9a-f]{64})\nmanifest ([0-9a-f]{64})\nkey ([0-9a-f]{16})\n"
    rb"version (0|[1-9][0-9]{0,9})\ndate (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\n"
)


@dataclass(frozen=True)
class Signed(Document):
    """What a signature says that was checked.

    Attributes:
        key_id: the first 16 hex digits of the sha256 of the public key's 32 bytes.
        version: of the bundle, as its signer counts; 0 where nothing was said.
        date: of the signer's clock, in UTC; null in the first format.
    """

    key_id: str
    version: Count
    date: str | None


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
    public = _public_of(private)
    if public == private:
        raise ToolkitError(f"{private} is what the public half would be called", fix="`key='NAME.pem'`")
    alone = private.exists() and not public.exists()
    for path in (public,) if alone else (private, public):
        if path.exists():
            raise ToolkitError(f"{path} is there already", fix="choose another `private_key=`, or leave `new_key=` out")
    key = _private_key(private) if alone else Ed25519PrivateKey.generate()
    pem = key.private_bytes(kinds.Encoding.PEM, kinds.PrivateFormat.PKCS8, kinds.NoEncryption())
    half = key.public_key().public_bytes(kinds.Encoding.PEM, kinds.PublicFormat.SubjectPublicKeyInfo)
    write_new({public: (half, 0o644)} if alone else {private: (pem, 0o600), public: (half, 0o644)})
    return public


def _public_of(private: Path) -> Path:
    if not private.name:
        raise ToolkitError(f"{private} is no name of a file", fix="`private_key='NAME.pem'`")
    return private.with_suffix(".pub")


def sign(tar: Content, manifest_sha256: str, private: Path, version: int = 0) -> tuple[Path, Signed]:
    """Signs a tar's bytes; returns the signature's path and what it says.

    Args:
        manifest_sha256: of the manifest in it.
        version: counts up from one release to the next; 0 says nothing.

    Raises:
        ToolkitError: no ed25519 private key without a passphrase, a version below 0, or another file in the way.
        MissingPackage: `cryptography` is not installed.
    """
    if not 0 <= version <= MOST_VERSION:
        raise ToolkitError(
            "a bundle's version is a number that counts up", found=version, allowed=f"0 to {MOST_VERSION}"
        )
    for half in (private, _public_of(private)):
        sweep(half)  # of a process that died while it made the pair: a copy of the key would lie there for ever
    key, path = _private_key(private), signature_path(tar.path)
    signed = Signed(_id_of(key.public_key()), version, datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
    text = (
        f"toolkit signature 2\ntar {tar.sha256}\nmanifest {manifest_sha256}\nkey {signed.key_id}\n"
        f"version {version}\ndate {signed.date}\n"
    ).encode()
    require_replaceable(path, "signature", lambda data: len(data) == RAW_BYTES or SIGNED.match(data) is not None)
    write_bytes(path, text + key.sign(text).hex().encode() + b"\n")
    return path, signed


def require_signature(tar: Content, public: Path) -> Signed:
    """Refuses a tar that the owner of a key did not sign; nothing in the tar is looked at.

    Raises:
        BundleError: no signature, or one of other bytes or another key. ToolkitError: no ed25519 public key.
        MissingPackage: `cryptography` is not installed.
    """
    path = signature_path(tar.path)
    if not path.is_file():
        raise BundleError(f"{tar.path} is not signed", found=f"no {path.name} beside it", fix="sign the tar")
    signature, key = content_of(path, KEY_BYTES, BundleError), _public_key(public)
    if len(signature.data) == RAW_BYTES:
        _require(key, signature.data, tar.data, signature, public)
        return Signed(_id_of(key), 0, None)
    return _said(signature, key, public, "tar", tar.sha256)


def require_signed_manifest(signature: Content, manifest: Content, public: Path) -> Signed:
    """Refuses a manifest that is not of a tar which the owner of a key signed.

    Args:
        signature: of the tar, in the second format.

    Raises:
        BundleError, ToolkitError, MissingPackage: as `require_signature`.
    """
    return _said(signature, _public_key(public), public, "manifest", manifest.sha256)


def _said(signature: Content, key: Any, public: Path, what: str, sha256: str) -> Signed:
    """What the six lines say, once the key has signed them and they are about these bytes."""
    text, _, digits = signature.data.removesuffix(b"\n").rpartition(b"\n")
    found = SIGNED.fullmatch(text + b"\n")
    raw = bytes.fromhex(digits.decode()) if re.fullmatch(rb"[0-9a-f]{128}", digits) else b""
    _require(key, raw, text + b"\n", signature, public)
    about = {} if found is None else {"tar": found[1].decode(), "manifest": found[2].decode()}
    if found is None or about[what] != sha256:
        raise _not_signed(signature, public)
    return Signed(found[3].decode(), int(found[4]), found[5].decode())


def _require(key: Any, raw: bytes, data: bytes, signature: Content, public: Path) -> None:
    with needs("check signatures"):
        from cryptography.exceptions import InvalidSignature
    try:
        if len(raw) != RAW_BYTES:
            raise InvalidSignature
        key.verify(raw, data)
    except InvalidSignature as error:
        raise _not_signed(signature, public) from error


def _not_signed(signature: Content, public: Path) -> BundleError:
    return BundleError(
        f"{signature.path} is not the signature of {signature.name.removesuffix('.sig')} by {public}",
        allowed="a tar whose bytes were signed with the private half of this key",
        fix="do not use it; get tar and signature again from their source",
    )


def _id_of(public: Any) -> str:
    with needs("check signatures"):
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def _public_key(path: Path) -> Any:
    with needs("check signatures"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    return _key(path, load_pem_public_key, Ed25519PublicKey, "public key")


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
