"""The atomate2 plugin of ADiT: jobs, documents and settings around :mod:`adit_model`.

Names are imported when first used, so ``import adit_atomate`` stays cheap and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adit_model import __version__

if TYPE_CHECKING:
    from adit_atomate.active_learning import ADiTActiveLearningMaker
    from adit_atomate.candidates import (
        ADiTCrystalCandidateDoc,
        ADiTDiscoveryDoc,
        ADiTMoleculeCandidateDoc,
    )
    from adit_atomate.data import MaterialsProjectSource, StoreSource, from_store
    from adit_atomate.evaluate import ADiTEvaluateMaker
    from adit_atomate.flows import ADiTDiscoveryMaker, ADiTMoleculeDiscoveryMaker
    from adit_atomate.jobs import ADiTGenerateMaker
    from adit_atomate.schemas import ADiTEvaluateDoc, ADiTGenerateDoc
    from adit_atomate.settings import ADiTSettings
    from adit_atomate.shards import ADiTGenerateShardsMaker
    from adit_atomate.training import ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker
    from adit_atomate.training_data import ADiTDataMaker
    from adit_atomate.training_flows import ADiTFineTuneMaker, ADiTTrainMaker
    from adit_atomate.training_report import ADiTTrainReportMaker
    from adit_atomate.training_schemas import ADiTDataDoc, ADiTTrainDoc, ADiTTrainReport

__all__ = [
    "ADiTActiveLearningMaker",
    "ADiTCrystalCandidateDoc",
    "ADiTDataDoc",
    "ADiTDataMaker",
    "ADiTDiscoveryDoc",
    "ADiTDiscoveryMaker",
    "ADiTEvaluateDoc",
    "ADiTEvaluateMaker",
    "ADiTFineTuneMaker",
    "ADiTGenerateDoc",
    "ADiTGenerateMaker",
    "ADiTGenerateShardsMaker",
    "ADiTMoleculeCandidateDoc",
    "ADiTMoleculeDiscoveryMaker",
    "ADiTSettings",
    "ADiTTrainAutoencoderMaker",
    "ADiTTrainDenoiserMaker",
    "ADiTTrainDoc",
    "ADiTTrainMaker",
    "ADiTTrainReport",
    "ADiTTrainReportMaker",
    "MaterialsProjectSource",
    "StoreSource",
    "__version__",
    "from_store",
]

_MODULES = {
    "ADiTActiveLearningMaker": "adit_atomate.active_learning",
    "ADiTCrystalCandidateDoc": "adit_atomate.candidates",
    "ADiTDataDoc": "adit_atomate.training_schemas",
    "ADiTDataMaker": "adit_atomate.training_data",
    "ADiTDiscoveryDoc": "adit_atomate.candidates",
    "ADiTDiscoveryMaker": "adit_atomate.flows",
    "ADiTEvaluateDoc": "adit_atomate.schemas",
    "ADiTEvaluateMaker": "adit_atomate.evaluate",
    "ADiTFineTuneMaker": "adit_atomate.training_flows",
    "ADiTGenerateDoc": "adit_atomate.schemas",
    "ADiTGenerateMaker": "adit_atomate.jobs",
    "ADiTGenerateShardsMaker": "adit_atomate.shards",
    "ADiTMoleculeCandidateDoc": "adit_atomate.candidates",
    "ADiTMoleculeDiscoveryMaker": "adit_atomate.flows",
    "ADiTSettings": "adit_atomate.settings",
    "ADiTTrainAutoencoderMaker": "adit_atomate.training",
    "ADiTTrainDenoiserMaker": "adit_atomate.training",
    "ADiTTrainDoc": "adit_atomate.training_schemas",
    "ADiTTrainMaker": "adit_atomate.training_flows",
    "ADiTTrainReport": "adit_atomate.training_schemas",
    "ADiTTrainReportMaker": "adit_atomate.training_report",
    "MaterialsProjectSource": "adit_atomate.data",
    "StoreSource": "adit_atomate.data",
    "from_store": "adit_atomate.data",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
