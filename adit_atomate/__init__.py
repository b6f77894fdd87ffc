"""The atomate2 plugin of ADiT: jobs, documents and settings around :mod:`adit_model`.

Names are imported when first used, so ``import adit_atomate`` stays cheap and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adit_model import __version__

if TYPE_CHECKING:
    from adit_atomate.discovery.documents import (
        ADiTCrystalCandidateDoc,
        ADiTDiscoveryDoc,
        ADiTMoleculeCandidateDoc,
    )
    from adit_atomate.discovery.flow import ADiTDiscoveryMaker, ADiTMoleculeDiscoveryMaker
    from adit_atomate.discovery.relax import ADiTRelaxStageMaker
    from adit_atomate.discovery.resume import resume
    from adit_atomate.documents import ADiTEvaluateDoc, ADiTGenerateDoc, ADiTPredictDoc
    from adit_atomate.evaluate import ADiTEvaluateMaker
    from adit_atomate.generate import ADiTGenerateMaker, ADiTGenerateShardsMaker
    from adit_atomate.predict import ADiTCompleteMaker, ADiTPredictMaker
    from adit_atomate.settings import ADiTSettings
    from adit_atomate.stores import disk_store
    from adit_atomate.training.active_learning import ADiTActiveLearningMaker
    from adit_atomate.training.data import ADiTDataMaker
    from adit_atomate.training.documents import ADiTDataDoc, ADiTTrainDoc, ADiTTrainReport
    from adit_atomate.training.flows import ADiTFineTuneMaker, ADiTTrainMaker
    from adit_atomate.training.report import ADiTTrainReportMaker
    from adit_atomate.training.sources import MaterialsProjectSource, StoreSource, from_store
    from adit_atomate.training.stages import ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker

__all__ = [
    "ADiTActiveLearningMaker",
    "ADiTCompleteMaker",
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
    "ADiTPredictDoc",
    "ADiTPredictMaker",
    "ADiTRelaxStageMaker",
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
    "disk_store",
    "from_store",
    "resume",
]

_NAMES = {
    "discovery.documents": "ADiTCrystalCandidateDoc ADiTDiscoveryDoc ADiTMoleculeCandidateDoc",
    "discovery.flow": "ADiTDiscoveryMaker ADiTMoleculeDiscoveryMaker",
    "discovery.relax": "ADiTRelaxStageMaker",
    "discovery.resume": "resume",
    "documents": "ADiTEvaluateDoc ADiTGenerateDoc ADiTPredictDoc",
    "evaluate": "ADiTEvaluateMaker",
    "generate": "ADiTGenerateMaker ADiTGenerateShardsMaker",
    "predict": "ADiTCompleteMaker ADiTPredictMaker",
    "settings": "ADiTSettings",
    "stores": "disk_store",
    "training.active_learning": "ADiTActiveLearningMaker",
    "training.data": "ADiTDataMaker",
    "training.documents": "ADiTDataDoc ADiTTrainDoc ADiTTrainReport",
    "training.flows": "ADiTFineTuneMaker ADiTTrainMaker",
    "training.report": "ADiTTrainReportMaker",
    "training.sources": "MaterialsProjectSource StoreSource from_store",
    "training.stages": "ADiTTrainAutoencoderMaker ADiTTrainDenoiserMaker",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"adit_atomate.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
