"""The atomate2 plugin of ADiT: jobs, documents and settings around :mod:`adit_model`.

Names are imported when first used, so ``import adit_atomate`` stays cheap and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adit_model import __version__

if TYPE_CHECKING:
    from adit_atomate.jobs import ADiTGenerateMaker
    from adit_atomate.schemas import ADiTGenerateDoc
    from adit_atomate.settings import ADiTSettings
    from adit_atomate.shards import ADiTGenerateShardsMaker

__all__ = [
    "ADiTGenerateDoc",
    "ADiTGenerateMaker",
    "ADiTGenerateShardsMaker",
    "ADiTSettings",
    "__version__",
]

_MODULES = {
    "ADiTGenerateDoc": "adit_atomate.schemas",
    "ADiTGenerateMaker": "adit_atomate.jobs",
    "ADiTGenerateShardsMaker": "adit_atomate.shards",
    "ADiTSettings": "adit_atomate.settings",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
