"""What the build of a wheel asks us: which files go beside the package, and where.

Every page in ``man/`` goes where `man` looks, by its section.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Beside(BuildHookInterface[Any]):
    """Adds them to those that pyproject.toml names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built."""
        for page in sorted(Path(self.root, "man").iterdir()):
            if section := re.fullmatch(r"\.([1-9])", page.suffix):
                build_data["shared_data"][str(page)] = f"share/man/man{section[1]}/{page.name}"
