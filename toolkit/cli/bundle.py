"""`toolkit bundle`: one file that crosses to the device: packed, signed, checked, unpacked."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli import options

if TYPE_CHECKING:
    from toolkit.bundle.packing import Packed
    from toolkit.bundle.requirements import Requirement
    from toolkit.bundle.results import Signature
    from toolkit.bundle.signing import Signed

app = typer.Typer(no_args_is_help=True, help="Pack a bundle into one file, sign it, check it, unpack it.")


@app.command()
def pack(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder or tar. (default: the newest in bundles/)"),
    output: Path | None = typer.Option(None, "-o", "--output", help="The tar. (default: BUNDLE.tar)"),
    only: str | None = typer.Option(
        None, "--only", help="Precisions and targets of one device, with commas: jetpack61,int8."
    ),
) -> dict[str, Any]:
    """Write one reproducible .tar: the same files give the same bytes, and the manifest of all hashes comes first.

    What the manifest does not name, such as what selftest saved of a device, stays behind. A stripped tar is another
    file: sign it after stripping.

    Examples:
      toolkit bundle pack bundles/my-net -o my-net.tar

      toolkit bundle pack bundles/my-net --only jetpack61,int8 -o orin.tar
    """
    import hashlib

    from toolkit.bundle.packing import SUFFIX, is_tar_of, tar_of_files
    from toolkit.bundle.reading import bundle_from_folder, require_apart
    from toolkit.bundle.results import PackedBundle
    from toolkit.bundle.stripping import manifest_bytes
    from toolkit.cli.console import say
    from toolkit.storage.files import write_bytes
    from toolkit.storage.replacing import require_replaceable

    opened = bundle_from_folder(bundle)
    target = output or _default_tar(bundle or opened.folder, only is not None, SUFFIX)
    require_apart(opened, target, "-o")
    require_replaceable(target, f"packed bundle of {opened.model}", is_tar_of(opened.model), "output")
    data = tar_of_files(opened.files, manifest_bytes(opened, only))
    write_bytes(target, data)
    digest = hashlib.sha256(data).hexdigest()
    say(f"{target}: {len(data):,} bytes, sha256 {digest}")
    return PackedBundle(True, target.resolve(), len(data), digest, only).as_dict()


@app.command()
def unpack(
    tar: Path = typer.Argument(..., help="A packed bundle."),
    output: Path | None = typer.Option(None, "-o", "--output", help="The folder. (default: TAR without .tar)"),
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Unpack a tar whole or not at all, every hash checked; with --key, its signature before anything else.

    Examples:
      toolkit bundle unpack my-net.tar -o bundles/my-net

      toolkit bundle unpack my-net.tar -o bundles/my-net --key vendor.pub
    """
    from toolkit.bundle.reading import bundle_from_folder
    from toolkit.bundle.requirements import NOTHING, requirement
    from toolkit.bundle.results import UnpackedBundle
    from toolkit.bundle.unpacking import unpack as unpack_tar
    from toolkit.cli.console import bold, say
    from toolkit.errors import ToolkitError

    target = output or (tar.with_suffix("") if tar.name else tar)
    if target == tar:
        raise ToolkitError(f"{tar} has no suffix, so the folder has no name", fix="-o FOLDER")
    wanted = requirement(key, min_version)
    packed = unpack_tar(tar, target, wanted)
    bundle_from_folder(target, wanted=NOTHING)  # the tar was asked for its signature
    signature = _signature(tar, packed.signed)
    say(f"{target}: {len(packed.places) + 1} files, {signature}")
    say("Next: ", bold(f"toolkit selftest {shlex.quote(str(target))}"))
    return UnpackedBundle(True, target.resolve(), len(packed.places) + 1, signature, packed.signed).as_dict()


@app.command()
def show(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder or tar. (default: the newest in bundles/)"),
) -> dict[str, Any]:
    """Say what a bundle holds: files, accuracy, engines. Every hash is checked; nothing is unpacked.

    Examples:
      toolkit bundle show bundles/my-net

      toolkit bundle show my-net.tar
    """
    from toolkit.bundle.requirements import requirement
    from toolkit.bundle.results import shown_bundle

    manifest, where, _ = _manifest(bundle, requirement())
    _show(manifest, where)
    return shown_bundle(where, manifest).as_dict()


@app.command()
def sign(
    tar: Path = typer.Argument(..., help="A packed bundle."),
    key: Path = typer.Option(
        ..., "--private-key", metavar="KEY.pem", help="An ed25519 private key, PEM without a passphrase."
    ),
    new_key: bool = typer.Option(False, "--new-key", help="Make the key first, with its public half in KEY.pub."),
    version: int = typer.Option(
        0,
        "--bundle-version",
        min=0,
        help="Of this bundle, counting up: --min-version refuses older ones. (default: none)",
    ),
) -> dict[str, Any]:
    """Write TAR.sig: the tar's sha256, the key's id, a version and the date, signed with ed25519.

    Examples:
      toolkit bundle sign my-net.tar --private-key vendor.pem --new-key

      toolkit bundle sign my-net.tar --private-key vendor.pem --bundle-version 3
    """
    from toolkit.bundle import signing
    from toolkit.bundle.packing import check_tar
    from toolkit.bundle.results import SignedBundle
    from toolkit.cli.console import say

    packed = check_tar(tar)  # nobody should put their name to a broken file
    if new_key:
        say(f"{signing.new_key(key)} is for the devices; keep {key} to yourself")
    signature, signed = signing.sign(packed.content, packed.manifest_content.sha256, key, version)
    say(f"{signature} signs {tar}: {_in_words(signed)}; a device checks it with --key")
    return SignedBundle(True, tar.resolve(), signature.resolve(), signed).as_dict()


@app.command()
def check(
    bundle: Path | None = typer.Argument(None, help="A bundle's folder or tar. (default: the newest in bundles/)"),
    key: Path | None = options.KEY,
    min_version: int | None = options.MIN_VERSION,
) -> dict[str, Any]:
    """Compare every byte with the manifest's hashes; with --key, the tar with its signature before anything else.

    Examples:
      toolkit bundle check my-net.tar --key vendor.pub

      toolkit bundle check bundles/my-net
    """
    from toolkit.bundle.requirements import requirement
    from toolkit.bundle.results import CheckedBundle
    from toolkit.cli.console import say
    from toolkit.workspace import newest_bundle

    bundle = bundle or newest_bundle()
    manifest, where, signed = _manifest(bundle, requirement(key, min_version))
    signature = _signature(bundle, signed)
    said = signature if signed is None else f"{signature}: {_in_words(signed)}"
    say(f"{where}: {len(manifest['files'])} files have the hashes of the manifest; {said}")
    return CheckedBundle(True, where, len(manifest["files"]), signature, signed).as_dict()


def _default_tar(bundle: Path, stripped: bool, suffix: str) -> Path:
    """Beside the bundle and never onto the tar that is read."""
    from toolkit.errors import ToolkitError

    if stripped or bundle.is_file():
        raise ToolkitError("a part of a bundle needs a name of its own", fix="-o TAR")
    beside = bundle if bundle.name not in ("", "..") else bundle.resolve()
    return beside.with_name(f"{bundle.resolve().name}{suffix}")


def _manifest(bundle: Path | None, wanted: Requirement) -> tuple[dict[str, Any], Path, Signed | None]:
    from toolkit.bundle.packing import check_tar
    from toolkit.bundle.reading import bundle_from_folder

    if bundle is not None and bundle.is_file():
        packed: Packed = check_tar(bundle, wanted)
        return packed.manifest, bundle.resolve(), packed.signed
    opened = bundle_from_folder(bundle, wanted=wanted)
    signed = wanted.require_folder(opened.folder, opened.manifest_content)
    return opened.manifest, opened.folder.resolve(), signed


def _signature(bundle: Path, signed: Signed | None) -> Signature:
    from toolkit.bundle.manifest import SIGNATURE
    from toolkit.bundle.signing import signature_path

    if signed is not None:
        return "signed with this key"
    there = bundle / SIGNATURE if bundle.is_dir() else signature_path(bundle)
    return "signed; not checked without a key" if there.is_file() else "not signed"


def _in_words(signed: Signed) -> str:
    version = f"version {signed.version}" if signed.version else "no version"
    return f"key {signed.key_id}, {version}, {signed.date or 'no date'}"


def _show(manifest: dict[str, Any], where: Path) -> None:
    from toolkit.cli.console import bold, note, say, table

    shape = "x".join(str(manifest["preprocessing"][name]) for name in ("height", "width", "channels"))
    note(f"{where}: {manifest['model']['name']}, uint8 images of {shape}, {len(manifest['labels'])} classes")
    if "stripped" in manifest:
        note(f"stripped to {', '.join(manifest['stripped']['only'])}")
    files = [(name, f"{entry['bytes'] / 1024:,.0f} KiB", entry["sha256"][:16]) for name, entry in
             manifest["files"].items()]  # fmt: skip
    table("Files", ("file", "size", "sha256<"), files)
    scores = [
        (precision, f"{found['candidate_score']['top1_percent']:.2f} %", f"{found['candidate_score']['images']:,}",
         f"{found['agreement_percent']:.2f} %")
        for precision, found in manifest.get("accuracy", {}).items()
    ]  # fmt: skip
    source = manifest.get("evaluation", {}).get("source", "unknown images")
    table(f"Accuracy on {source}", ("file", "top-1", "images", "agrees with fp32"), scores)
    engines = [
        (
            e["file"],
            e.get("target", "unknown"),
            f"{e['tensorrt']['kind']} {e['tensorrt']['version']}" if "tensorrt" in e else "unknown",
        )
        for e in manifest.get("engines", [])
    ]
    if engines:
        table("Engines", ("engine", "target<", "built with<"), engines)
    else:
        say("No engines: ", bold("toolkit build"), " on the device makes them.")
