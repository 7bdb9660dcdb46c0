"""MAT inside other libraries' trainers, one file each; a file is imported by name, as its library is optional.

from unrote.integrations.lightning import MATCallback
from unrote.integrations.transformers import MATTrainer
"""

import importlib

from unrote.errors import MissingPackageError


def require(package: str, extra: str) -> None:
    """Import a package of an optional extra.

    Args:
        package: as it is imported.
        extra: of unrote, which installs it.

    Raises:
        MissingPackageError: if it is not installed.
        ModuleNotFoundError: if it is installed but broken, its own error.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingPackageError(
            f"this needs the package {package!r}, which is not installed: "
            f"run `pip install 'unrote[{extra}]'`, or install {package} itself"
        ) from error
