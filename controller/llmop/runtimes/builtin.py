"""The ServingRuntimes and ResourceProfiles that ship with llmop, as YAML text. Parsing is the caller's: `manifest.load`."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def runtimes() -> dict[str, str]:
    """File name to text of every built-in ServingRuntime."""
    return _texts("builtin", "runtimes")


def profiles() -> dict[str, str]:
    """File name to text of every built-in ResourceProfile."""
    return _texts("profiles", "profiles")


def _texts(packaged: str, in_checkout: str) -> dict[str, str]:
    """A wheel holds the files inside the package; in a checkout they lie in manifests/ only."""
    folder = _PACKAGE / packaged
    if not folder.is_dir():
        folder = _PACKAGE.parents[2] / "manifests" / in_checkout
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}
