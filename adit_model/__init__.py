"""All-atom Diffusion Transformer (ADiT): a generative model of crystals and molecules.

Names are imported when first used, so ``import adit_model`` stays cheap and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adit_model.batch import AtomicBatch
    from adit_model.conditions.condition import Condition
    from adit_model.data.dataset import AtomicDataset
    from adit_model.model import ADiT
    from adit_model.sampling.request import Request
    from adit_model.sampling.sample import Sample
    from adit_model.systems import AtomicSystem

__version__ = "0.1.0"
__all__ = [
    "ADiT",
    "AtomicBatch",
    "AtomicDataset",
    "AtomicSystem",
    "Condition",
    "Request",
    "Sample",
    "__version__",
]

_MODULES = {
    "ADiT": "adit_model.model",
    "AtomicBatch": "adit_model.batch",
    "AtomicDataset": "adit_model.data.dataset",
    "AtomicSystem": "adit_model.systems",
    "Condition": "adit_model.conditions.condition",
    "Request": "adit_model.sampling.request",
    "Sample": "adit_model.sampling.sample",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
