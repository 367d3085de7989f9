"""Packages that only exports need."""

from importlib.util import find_spec


def need(*packages: str, extra: str = "export") -> None:
    """Nothing, if the packages are installed.

    Raises:
        ModuleNotFoundError: one is not; the message names the extra of this package that brings it.
    """
    for package in packages:
        if find_spec(package) is None:
            message = f"{package} is not installed; it comes with: pip install 'tinymyo-hf[{extra}]'"
            raise ModuleNotFoundError(message, name=package)
