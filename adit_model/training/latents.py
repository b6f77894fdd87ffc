"""Latents of data sets: of canonical poses encoded once and cached."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from adit_model.data.dataset import AtomicDataset
from adit_model.files import atomic_path
from adit_model.network.cells import CELL_DIM
from adit_model.network.exact import AnyAutoencoder
from adit_model.progress import tqdm
from adit_model.training.batches import LatentSource, SystemSource
from adit_model.training.poses import augment, dataset_fingerprint


@torch.no_grad()
def encode_dataset(
    autoencoder: AnyAutoencoder,
    dataset: AtomicDataset,
    batch_size: int = 256,
    progress: bool = True,
    poses: torch.Generator | None = None,
) -> LatentSource:
    """Mean latents of every system, in order.

    Parameters
    ----------
    autoencoder : Autoencoder
        Trained stage 1.
    dataset : AtomicDataset
        In canonical pose, or centred.
    batch_size : int
        Systems encoded at a time; 16 times as many on a GPU.
    progress : bool
        Show a progress bar.
    poses : torch.Generator
        Draw a random pose of each system; without, they are encoded as they are.
    """
    device = next(autoencoder.parameters()).device
    if device.type == "cuda":
        batch_size *= 16
    source = SystemSource(dataset)
    parts = []
    starts = range(0, len(dataset), batch_size)
    for start in tqdm(starts, desc="encoding", disable=not progress, unit="batch"):
        indices = np.arange(start, min(start + batch_size, len(dataset)))
        batch = source.batch(indices).to(device)
        if poses is not None:
            batch = augment(batch, poses)
        mean, _ = autoencoder.encode(batch)
        parts.append(mean.float().cpu().numpy())
    return LatentSource(np.concatenate(parts), dataset, autoencoder.config.exact)


def cached_latents(
    autoencoder: AnyAutoencoder,
    autoencoder_hash: str,
    dataset: AtomicDataset,
    folder: Path,
    progress: bool = True,
    properties: np.ndarray | None = None,
) -> LatentSource:
    """Read the latents of this data set under this autoencoder, or encode and keep them.

    Of several processes that ask at a time the first encodes; the others wait and read its file.
    """
    from filelock import FileLock

    key = hashlib.sha256((autoencoder_hash + dataset_fingerprint(dataset)).encode()).hexdigest()
    path = folder / f"latents-{key[:16]}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            source = encode_dataset(autoencoder, dataset, progress=progress)
            with atomic_path(path) as partial, open(partial, "wb") as file:
                np.save(file, source.latents)
    return LatentSource(np.load(path), dataset, autoencoder.config.exact, properties)


def random_pose_latents(
    autoencoder: AnyAutoencoder, dataset: AtomicDataset, progress: bool = True, most: int = 20_000
) -> LatentSource:
    """Latents of up to ``most`` systems in random poses, the same at each call."""
    order = np.random.default_rng(0).permutation(len(dataset))[:most]
    poses = torch.Generator().manual_seed(0)
    return encode_dataset(autoencoder, dataset.subset(np.sort(order)), 256, progress, poses)


def latent_statistics(
    source: LatentSource, share_coordinates: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the latents of each kind of row.

    Parameters
    ----------
    source : LatentSource
        Training latents.
    share_coordinates : bool
        Give channels 0 to 2 one common scale, so noise on coordinates has no direction.

    Returns
    -------
    tuple of numpy.ndarray
        Each of shape (K, L); row 0 atoms of molecules, row 1 of crystals, and with cells row 2
        cells. A kind without data has 0 and 1.
    """
    rows, channels = 3 if source.has_cells else 2, source.latents.shape[1]
    mean, std = np.zeros((rows, channels), np.float32), np.ones((rows, channels), np.float32)
    kinds = np.repeat(source.periodic, source.sizes).astype(np.int64)
    if source.has_cells:
        kinds[source.offsets[1:][source.periodic] - 1] = 2
    for row in range(rows):
        values = source.latents[kinds == row].astype(np.float64)
        if len(values) < 2:
            continue
        mean[row] = values.mean(axis=0)
        spread = values.std(axis=0)
        if row == 2:
            spread[CELL_DIM:] = 1.0
        elif share_coordinates:
            spread[:3] = np.sqrt((spread[:3] ** 2).mean())
        std[row] = np.maximum(spread, 1e-3)
    return mean, std
