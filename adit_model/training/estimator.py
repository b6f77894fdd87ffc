"""Teach a trained model to estimate the properties that it can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from adit_model.model import ADiT
from adit_model.network.denoiser import Denoiser
from adit_model.network.estimator import LEAST_SPREAD, Estimator, features
from adit_model.progress import tqdm
from adit_model.training.batches import LatentSource

EPOCHS = 25
BATCH_SIZE = 256
LEARNING_RATE = 1.5e-3
WEIGHT_DECAY = 1e-2
MOST_HELD_OUT = 3000  # of each set of validation structures
HELD_OUT = 0.1  # of the training structures, where the validation ones lack a property
LEAST_KNOWN = 200  # structures with a property, without which no error is known well enough
BETTER_THAN_MEDIAN = 0.8  # an error above this share of that of the median is no estimate


def fit_estimator(
    model: ADiT,
    training: LatentSource,
    validation: Sequence[LatentSource] = (),
    most: int = 30_000,
    progress: bool = True,
) -> None:
    """Fit ``model.estimator``, and write its errors into ``model.known.properties``.

    A property is estimated if its mean absolute error on structures held out is under 0.8 of that
    of the median, and at least 200 structures have it. If none is, the model has no estimator.

    Parameters
    ----------
    model : ADiT
        With a trained denoiser; its properties are those of the labels.
    training, validation : LatentSource
        Latents and standardised labels. The errors are of the validation structures, or where too
        few of these have a property, of a tenth of the training ones.
    most : int
        Training structures of each domain that are used at most.
    progress : bool
        Show progress bars.
    """
    assert model.denoiser is not None
    model.estimator = None
    denoiser = model.denoiser.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        known = np.isfinite(training.properties).any(axis=1)
        random = np.random.default_rng(0)
        pools = [np.flatnonzero(known & (training.periodic == kind)) for kind in (True, False)]
        chosen = np.sort(np.concatenate([random.permutation(pool)[:most] for pool in pools]))
        if len(chosen) < LEAST_KNOWN:
            return
        x, y = _described(denoiser, training, chosen, progress)
        others = [
            _described(denoiser, v, random.permutation(len(v.sizes))[:MOST_HELD_OUT], False)
            for v in validation
        ]
        if not others or _counts([values for _, values in others]).min() < LEAST_KNOWN:
            order = torch.from_numpy(random.permutation(len(x)))
            held, rest = order.tensor_split([int(HELD_OUT * len(x))])
            others, x, y = [(x[held], y[held])], x[rest], y[rest]
        estimator = Estimator(model.config.denoiser)
        estimator.mean.copy_(x.mean(dim=0))
        estimator.std.copy_(x.std(dim=0).clamp_min(LEAST_SPREAD))
        _train(estimator, x, y, progress)
    found = torch.cat([estimator(part) for part, _ in others]).detach()
    truth = torch.cat([values for _, values in others])
    counts, middles = _counts([y, truth]), y.nanmedian(dim=0).values
    properties = dict(model.known.properties)
    for i, name in enumerate(model.config.denoiser.properties):
        if name not in properties:
            continue
        there = truth[:, i].isfinite()
        error = (found[there, i] - truth[there, i]).abs().mean().item()
        null = (middles[i] - truth[there, i]).abs().mean().item()
        good = counts[i] >= LEAST_KNOWN and error < BETTER_THAN_MEDIAN * null
        scale = properties[name].std
        properties[name] = replace(properties[name], error=error * scale if good else None)
    model.known = replace(model.known, properties=properties)
    if any(values.error is not None for values in properties.values()):
        model.estimator = estimator.to(model.device)


def _counts(labels: Sequence[Tensor]) -> Tensor:
    """How many structures have each property, shape (P,)."""
    return torch.stack([values.isfinite().sum(dim=0) for values in labels]).sum(dim=0)


def _described(
    denoiser: Denoiser, source: LatentSource, indices: np.ndarray, progress: bool
) -> tuple[Tensor, Tensor]:
    """Features and labels of structures, small ones batched together, in the order of indices."""
    device = next(denoiser.parameters()).device
    order = np.argsort(source.sizes[indices], kind="stable")
    parts = np.array_split(order, max(1, len(order) // BATCH_SIZE))
    rows = []
    for part in tqdm(parts, desc="estimator", disable=not progress, unit="batch"):
        batch = source.batch(indices[part]).to(device)
        x_1 = denoiser.normalise(batch.latents, batch.groups.kinds)
        rows.append(features(denoiser, x_1, batch.groups, batch.numbers).cpu())
    back = torch.from_numpy(np.argsort(order))
    return torch.cat(rows)[back], torch.from_numpy(source.properties[indices])


def _train(estimator: Estimator, x: Tensor, y: Tensor, progress: bool) -> None:
    """Fit by the Huber loss over what is known, with a learning rate of one cycle."""
    there, y = y.isfinite(), y.nan_to_num()
    size = min(BATCH_SIZE, len(x))
    steps = EPOCHS * (len(x) // size)
    optimizer = torch.optim.AdamW(estimator.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    estimator.train()
    for _ in tqdm(range(EPOCHS), desc="estimator", disable=not progress, unit="epoch"):
        for part in torch.randperm(len(x)).split(size)[: len(x) // size]:
            error = nn.functional.huber_loss(estimator(x[part]), y[part], "none", 0.3)
            loss = (error * there[part]).sum() / there[part].sum().clamp_min(1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    estimator.eval()
