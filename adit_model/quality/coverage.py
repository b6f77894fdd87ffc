"""Coverage of data by samples: crystals compared by fingerprints of sites and of composition.

Definition and thresholds of CDVAE (Xie et al., ICLR 2022, arXiv 2110.06197, appendix on metrics)
but for one point: composition features are standardised by the data compared to, where CDVAE's
code has constants.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adit_model.systems import AtomicSystem

SITE_CUTOFF = 0.4  # of CDVAE for MP-20
COMPOSITION_CUTOFF = 10.0
_BLOCK = 1000  # rows of a distance matrix held at a time


def fingerprint(system: AtomicSystem) -> dict[str, Any]:
    """Take the fingerprints of a crystal with matminer.

    Returns
    -------
    dict
        ``sites``: CrystalNN fingerprint (order parameters of the coordination of each site, preset
        ``ops``), the mean over all sites, 61 numbers. ``composition_features``: statistics of
        elemental properties (preset ``magpie``), 132 numbers. ``fingerprint``: True.

    Raises
    ------
    ImportError
        If matminer is not installed.
    ValueError
        For a molecule.
    """
    structure = system.to_structure()
    sites, composition = _featurizers()
    rows = [sites.featurize(structure, i) for i in range(len(structure))]
    features = np.array(composition.featurize(structure.composition), dtype=float)
    return {
        "fingerprint": True,
        "sites": np.mean(rows, axis=0).tolist(),
        "composition_features": features.tolist(),
    }


@functools.cache
def _featurizers() -> tuple[Any, Any]:
    from matminer.featurizers.composition.composite import ElementProperty
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    return CrystalNNFingerprint.from_preset("ops"), ElementProperty.from_preset("magpie")


def coverage(
    samples: Sequence[Mapping[str, Any]], data: Sequence[Mapping[str, Any]], num_samples: int
) -> dict[str, float] | None:
    """Compare samples to data.

    One is near another if the Euclidean distance of the site fingerprints is at most 0.4, and that
    of the standardised composition features at most 10, each to the nearest (they need not be
    the same structure, as in CDVAE).

    Parameters
    ----------
    samples, data : sequence of dict
        Of both, from :func:`fingerprint`.
    num_samples : int
        All samples, those without a fingerprint included.

    Returns
    -------
    dict or None
        ``precision``: share of all samples that have a structure of the data near by. ``recall``:
        share of the data with a sample near by; it rises with the number of samples. None if one
        of them is empty.
    """
    if not samples or not data:
        return None
    sites = [np.array([each["sites"] for each in side]) for side in (samples, data)]
    compositions = [
        np.array([each["composition_features"] for each in side]) for side in (samples, data)
    ]
    mean, spread = np.nanmean(compositions[1], axis=0), np.nanstd(compositions[1], axis=0)
    spread[~(spread > 0)] = 1.0
    scaled = [np.nan_to_num((side - mean) / spread) for side in compositions]
    site_nearest = _nearest(*sites)
    composition_nearest = _nearest(*scaled)
    near = [
        (site <= SITE_CUTOFF) & (composition <= COMPOSITION_CUTOFF)
        for site, composition in zip(site_nearest, composition_nearest, strict=True)
    ]
    return {"precision": float(near[0].sum() / num_samples), "recall": float(near[1].mean())}


def _nearest(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point of either set to the nearest of the other."""
    from scipy.spatial.distance import cdist

    to_second = np.full(len(first), np.inf)
    to_first = np.full(len(second), np.inf)
    for i in range(0, len(first), _BLOCK):
        distances = cdist(first[i : i + _BLOCK], second)
        to_second[i : i + _BLOCK] = distances.min(axis=1)
        to_first = np.minimum(to_first, distances.min(axis=0))
    return to_second, to_first
