"""The bundle: the folder that crosses from host to device, its contents and hashes in `manifest.json`."""

from toolkit.bundle.reading import Bundle, bundle_from_folder

__all__ = ["Bundle", "bundle_from_folder"]
