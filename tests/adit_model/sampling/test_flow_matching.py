"""Solvers against an exact solution, and the loss by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from adit_model.batch import Packing
from adit_model.config import DenoiserConfig
from adit_model.network.conditioning import Told
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups
from adit_model.sampling.flow import integrate, renew_noise, time_grid
from adit_model.training.loss import T_MAX, T_MIN, draw_times, flow_matching_loss

SPREAD = 0.3  # standard deviation of the Gaussian data


class ExactDenoiser(nn.Module):
    """E[x_1 | x_t] for x_1 from a normal distribution of mean 0 and deviation SPREAD."""

    config = SimpleNamespace(self_condition=0.0, optimal_noise=False)
    tell_nothing = staticmethod(lambda groups: Told.nothing(groups, 2))

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bool] = []  # whether elements were told

    def forward(self, x, t, groups, told, self_condition=None):
        self.calls.append(bool(told.elements.any()))
        time = t[groups.packing.index, None]
        variance = time**2 * SPREAD**2 + (1 - time) ** 2
        return x * time * SPREAD**2 / variance


def molecules(number: int, size: int = 1) -> DomainGroups:
    sizes = torch.full((number,), size)
    return DomainGroups(Packing(sizes), torch.zeros(number, dtype=torch.bool))


def solve(x_0, solver, num_steps, **options):
    groups = molecules(len(x_0))
    return integrate(ExactDenoiser(), x_0, groups, num_steps, solver, 1.0, **options)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_solvers_converge_with_their_order(solver, order):
    """The flow of Gaussian data scales x: x(t) = x_0 sqrt(t^2 s^2 + (1 - t)^2), so x(1) = s x_0."""
    x_0 = torch.ones(1, 2, dtype=torch.float64)
    errors = [float((solve(x_0, solver, n) - SPREAD * x_0).abs().max()) for n in (80, 160)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    assert errors[1] < 0.02


def test_the_multistep_solver_is_of_second_order():
    """Second order but for a logarithm: log-SNR has no bounds at the ends."""
    x_0 = torch.ones(1, 2, dtype=torch.float64)
    fine = [float((solve(x_0, "multistep", n) - SPREAD * x_0).abs().max()) for n in (640, 1280)]
    assert np.log2(fine[0] / fine[1]) == pytest.approx(1.85, abs=0.15)
    errors = {
        (solver, n): float((solve(x_0, solver, n) - SPREAD * x_0).abs().max())
        for solver, n in (("euler", 32), ("multistep", 16), ("multistep", 32))
    }
    assert errors["multistep", 16] < errors["euler", 32]
    assert errors["multistep", 32] < 0.3 * errors["euler", 32]


@pytest.mark.parametrize("solver", ["ancestral", "multistep"])
def test_renewed_noise_keeps_the_distribution(solver):
    """Renewed noise of full scale gives the data's spread, less of it gives less."""
    generator = torch.Generator().manual_seed(0)
    number, steps = 4000, 300
    x_0 = torch.randn(number, 2, generator=generator)
    fresh = torch.randn(steps - 1, number, 2, generator=generator)
    x = solve(x_0, solver, steps, fresh_noise=fresh)
    assert float(x.std()) == pytest.approx(SPREAD, rel=0.04)
    assert abs(np.corrcoef(x[:, 0], x_0[:, 0])[0, 1]) < 0.05  # nothing is left of x_0
    narrow = solve(x_0, solver, steps, fresh_noise=0.7 * fresh)
    assert float(narrow.std()) < 0.85 * float(x.std())


def test_the_ancestral_solver_needs_noise():
    x_0 = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="needs fresh_noise"):
        solve(x_0, "ancestral", 3)


def test_renewed_noise_has_the_variance_of_the_step():
    generator = torch.Generator().manual_seed(1)
    x_1 = torch.zeros(20_000, 1)
    rest = 0.4 * torch.randn(20_000, 1, generator=generator)  # at then = 0.6, deviation 1 - then
    noise = torch.randn(20_000, 1, generator=generator)
    x = renew_noise(rest, x_1, 0.5, 0.6, noise)
    assert float(x.std()) == pytest.approx(0.4, rel=0.03)
    ratio = (0.4 / 0.6) / (0.5 / 0.5)  # sigma of 0.6 over sigma of 0.5
    assert np.corrcoef(x[:, 0], rest[:, 0])[0, 1] == pytest.approx(ratio, abs=0.02)


@pytest.mark.parametrize(
    ("scale", "elements", "calls"),
    [
        (1.0, [6, 1, 1], [True]),
        (2.0, [6, 1, 1], [True, False]),
        (0.0, [6, 1, 1], [True, False]),
        (2.0, [0, 0, 0], [False]),
    ],
)
def test_guidance_evaluates_twice_where_something_is_told(scale, elements, calls):
    denoiser, groups = ExactDenoiser(), molecules(3)
    told = Told.nothing(groups, 2)
    told.elements = torch.tensor(elements)
    integrate(denoiser, torch.zeros(3, 2), groups, 4, "euler", scale, told=told)
    assert denoiser.calls == 4 * calls


@pytest.mark.parametrize("skew", [0.0, 0.5, 2.0])
def test_times_follow_their_distribution(skew):
    t = draw_times(4000, skew, torch.Generator().manual_seed(0)).double()
    assert float(t.min()) >= T_MIN and float(t.max()) <= T_MAX
    unit = (t - T_MIN) / (T_MAX - T_MIN)
    assert stats.kstest(unit.numpy(), stats.beta(1 + skew, 1).cdf).pvalue > 0.01


@pytest.mark.parametrize("focus", [0.25, 1.0])
def test_focused_times(focus):
    """A mixture: its distribution function is that of its parts."""
    t = draw_times(4000, 0.5, torch.Generator().manual_seed(1), focus).double().numpy()

    def mixture(x):
        skewed = stats.beta(1.5, 1).cdf((x - T_MIN) / (T_MAX - T_MIN))
        return (1 - focus) * skewed + focus * stats.norm(0.2, 0.75).cdf(np.log(x / (1 - x)))

    assert stats.kstest(t, mixture).pvalue > 0.01


def test_held_out_times_are_not_focused():
    losses = {}
    for focus in (0.0, 1.0):
        torch.manual_seed(0)
        config = DenoiserConfig(dim=8, num_layers=1, num_heads=2, time_focus=focus)
        denoiser = Denoiser(config)
        groups = molecules(5, size=3)
        x_1 = torch.randn(15, 8, generator=torch.Generator().manual_seed(2))
        for training in (True, False):
            generator = torch.Generator().manual_seed(7)
            loss, _ = flow_matching_loss(denoiser.train(training), x_1, groups, generator)
            losses[focus, training] = float(loss)
    assert losses[0.0, False] == losses[1.0, False]
    assert losses[0.0, True] != losses[1.0, True]


@pytest.mark.parametrize("clip", [0.9, 0.5])
def test_loss_by_hand(clip):
    """An untrained network without preconditioning predicts 0: the error is x_1 itself."""
    config = DenoiserConfig(dim=8, num_layers=1, num_heads=2, self_condition=0.0, time_clip=clip)
    groups = molecules(5, size=3)
    x_1 = torch.randn(15, 8, generator=torch.Generator().manual_seed(2))
    loss, terms = flow_matching_loss(
        Denoiser(config), x_1, groups, torch.Generator().manual_seed(7)
    )
    generator = torch.Generator().manual_seed(7)
    torch.randn(x_1.shape, generator=generator)
    t = draw_times(5, 0.0, generator)[groups.packing.index, None]
    expected = (x_1 / (1 - t.clamp(max=clip))).square().mean()
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert float(terms["molecule"]) == pytest.approx(float(expected), rel=1e-5)
    assert set(terms) == {"molecule", "molecule_coordinates"}


def test_focused_steps_crowd_and_a_later_start_takes_its_share():
    times = np.array(time_grid(40, focus=0.7))
    assert len(times) == 41 and times[0] == 0 and times[-1] == 1
    widths = np.diff(times)
    assert (widths > 0).all()
    middle = widths[(times[:-1] > 0.5) & (times[1:] < 0.6)]
    assert middle.max() < 0.5 / 40 < 1.5 / 40 < widths[0]
    late = np.array(time_grid(40, 0.55, focus=0.7))
    assert late[0] == 0.55 and late[-1] == 1
    assert len(late) - 1 == pytest.approx((times >= 0.55).sum(), abs=1)
    assert time_grid(4, 0.5) == [0.5, 0.75, 1.0]
