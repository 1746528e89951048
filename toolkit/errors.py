"""What a user can cause, in words: what was wrong, what was found, what is allowed, what to type."""

from __future__ import annotations


class ToolkitError(Exception):
    """A fault that its user can mend. The command line prints it and exits 1; it is never a traceback.

    Attributes:
        kinds: names of what is wrong, for programs, where several things may be.

    Args:
        what: one sentence naming the thing that is wrong.
        found: what was there instead.
        allowed: what would have been right.
        fix: what to do next. Arguments and functions of the toolkit stand in backticks, as in Python: `convert=True`,
            `toolkit.build`; the command line prints them as they are typed.
    """

    kinds: tuple[str, ...] = ()

    def __init__(self, what: str, *, found: object = None, allowed: object = None, fix: str | None = None) -> None:
        self.what = what
        self.found = None if found is None else str(found)
        self.allowed = None if allowed is None else str(allowed)
        self.fix = fix
        lines = [what]
        lines += [f"  found:   {self.found}"] if self.found is not None else []
        lines += [f"  allowed: {self.allowed}"] if self.allowed is not None else []
        lines += [f"  try:     {fix}"] if fix else []
        super().__init__("\n".join(lines))

    def in_one_line(self) -> str:
        """Why something is left out, where the rest goes on: what was wrong, what was found, what to type."""
        return "; ".join(part for part in (self.what, self.found, self.fix and f"try: {self.fix}") if part)

    def as_dict(self) -> dict[str, str | None]:
        """The same four parts for machines, with the error's name."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "found": self.found,
            "allowed": self.allowed,
            "fix": self.fix,
        }


class DataError(ToolkitError):
    """Images or labels that cannot be used."""


class ModelError(ToolkitError):
    """A model folder, card or set of weights that cannot be used."""


class ExportError(ToolkitError):
    """A graph that was not written, because it would not have been the same model."""


class CalibrationError(ToolkitError):
    """Ranges that do not belong to this model or to these images."""


class BundleError(ToolkitError):
    """A bundle that is missing, incomplete or changed since it was written."""


class EngineError(ToolkitError):
    """A TensorRT engine that was not built or must not be loaded here."""


class BackendUnavailable(ToolkitError):
    """An inference engine that cannot run here, with the reason."""


class MissingPackage(ToolkitError):
    """A Python package that a command needs and this environment lacks."""
