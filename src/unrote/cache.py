"""Where downloads and what is computed from them are kept."""

import os
from pathlib import Path

ENVIRONMENT = "UNROTE_CACHE"


def cache_folder() -> Path:
    """$UNROTE_CACHE, else ~/.cache/unrote."""
    return Path(os.environ.get(ENVIRONMENT) or Path.home() / ".cache" / "unrote").expanduser()
