"""Hyper-parameters: named sizes, refused values, and the way to and from plain dictionaries."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adit_model.config import (
    ENCODERS,
    SIZES,
    SOLVERS,
    AutoencoderConfig,
    DenoiserConfig,
    ModelConfig,
    SamplingConfig,
    named_size,
)
from adit_model.network.denoiser import Denoiser
from adit_model.network.exact import AnyAutoencoder, build_autoencoder

SHARES = st.floats(0, 1)
WEIGHTS = st.floats(0, 1e6)


@st.composite
def widths(draw) -> dict[str, int]:
    heads = draw(st.integers(1, 16))
    return {"num_heads": heads, "dim": 2 * heads * draw(st.integers(1, 16))}


@st.composite
def model_configs(draw) -> ModelConfig:
    canonical = draw(st.booleans())
    identity = canonical and draw(st.booleans())
    autoencoder = AutoencoderConfig(
        **draw(widths()),
        encoder="transformer" if identity else draw(st.sampled_from(ENCODERS)),
        num_encoder_layers=draw(st.integers(0, 20)),
        num_decoder_layers=draw(st.integers(1, 20)),
        latent_dim=draw(st.integers(4, 64)),
        num_elements=draw(st.integers(2, 119)),
        identity_start=identity,
        geometry=identity and draw(st.booleans()),
        canonical=canonical,
        cell_input=draw(st.booleans()),
        coordinate_scale=draw(st.floats(1e-3, 1e3)),
        log_variance_start=draw(st.floats(-20, 10)),
        kl_weight=draw(WEIGHTS),
        angle_weight=draw(WEIGHTS),
        mask_fraction=draw(SHARES),
        noise_fraction=draw(SHARES),
        latent_noise=draw(WEIGHTS),
    )
    denoiser = DenoiserConfig(
        **draw(widths()),
        num_layers=draw(st.integers(1, 40)),
        size_condition=draw(st.booleans()),
        geometry=identity and draw(st.booleans()),
        geometry_every=draw(st.integers(1, 8)),
        precondition=draw(st.booleans()),
        class_dropout=draw(SHARES),
        self_condition=draw(SHARES),
        time_clip=draw(st.floats(0, 1, exclude_max=True)),
        time_skew=draw(st.floats(-1, 10, exclude_min=True)),
        time_focus=draw(SHARES),
        feature_scale=draw(st.floats(0.01, 2)) if identity else 1.0,
    )
    sampling = SamplingConfig(
        draw(st.integers(1, 1000)), draw(st.sampled_from(SOLVERS)), draw(st.floats(0, 100))
    )
    return ModelConfig(autoencoder, denoiser, sampling)


@given(model_configs())
def test_configs_survive_json(config):
    data = json.loads(json.dumps(config.as_dict()))
    assert ModelConfig.from_dict(data) == config


@given(model_configs())
def test_a_complete_dictionary_overrides_every_option_of_a_named_size(config):
    assert ModelConfig.from_dict({"size": "large", **config.as_dict()}) == config


@pytest.mark.parametrize("name", SIZES)
def test_named_sizes_are_read_by_name(name):
    assert ModelConfig.from_dict({"size": name}) == named_size(name) == SIZES[name]


def test_reading_changes_neither_the_dictionary_nor_the_named_size():
    data = {"size": "small", "denoiser": {"num_layers": 3}}
    config = ModelConfig.from_dict(data)
    assert (config.denoiser.num_layers, config.denoiser.dim) == (3, 384)
    assert data == {"size": "small", "denoiser": {"num_layers": 3}}
    assert named_size("small").denoiser.num_layers == 12
    with pytest.raises(FrozenInstanceError):
        config.denoiser.num_layers = 4


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def built(name: str) -> tuple[Denoiser, AnyAutoencoder]:
    config = named_size(name)
    with torch.device("meta"):
        cells = config.autoencoder.exact
        denoiser = Denoiser(config.denoiser, config.autoencoder.latent_dim, cells=cells)
        return denoiser, build_autoencoder(config.autoencoder)


@pytest.mark.parametrize(("name", "millions"), [("small", 32.6), ("base", 129.7), ("large", 457.0)])
def test_sizes_are_those_of_the_paper(name, millions):
    denoiser, autoencoder = built(name)
    assert count(denoiser) == pytest.approx(1e6 * millions, rel=0.01)
    assert count(autoencoder) == pytest.approx(51e6, rel=0.01)


def test_mini_fits_into_a_package():
    assert 3e6 < sum(count(module) for module in built("mini")) < 10e6


def test_the_paper_treats_data_by_augmentation_and_mini_by_canonical_poses():
    assert named_size("mini").autoencoder.canonical
    for name in ("small", "base", "large"):
        config = named_size(name)
        assert not config.autoencoder.canonical
        assert config.sampling == SamplingConfig(100, "euler", 2.0)


NAN, INF = math.nan, math.inf
OUT_OF_RANGE = {
    AutoencoderConfig: {
        "encoder": ["gnn", ""],
        "dim": [0, -8, 100, 515],
        "num_heads": [0, -1, 3],
        "num_encoder_layers": [-1],
        "num_decoder_layers": [0, -1],
        "latent_dim": [0, -8],
        "num_elements": [1, 0, -5],
        "coordinate_scale": [0.0, -0.3, NAN, INF],
        "log_variance_start": [-20.5, 11.0, NAN],
        "kl_weight": [-1e-5, NAN, INF],
        "coordinate_weight": [-1.0, NAN],
        "length_weight": [-1.0, NAN],
        "angle_weight": [-1.0, NAN],
        "mask_fraction": [-0.1, 1.1, NAN],
        "noise_fraction": [-0.1, 1.1, NAN],
        "noise_angstrom": [-0.1, NAN],
        "latent_noise": [-0.1, NAN],
    },
    DenoiserConfig: {
        "dim": [0, -6, 100, 387],
        "num_heads": [0, -1, 5],
        "num_layers": [0, -1],
        "geometry_every": [0, -2],
        "class_dropout": [-0.1, 1.5, NAN],
        "self_condition": [-0.1, 1.5, NAN],
        "time_clip": [-0.1, 1.0, NAN],
        "time_skew": [-1.0, -3.0, NAN, INF],
        "time_focus": [-0.1, 1.5, NAN],
        "feature_scale": [0.0, -0.2, NAN, INF],
        "properties": [("band_gap",)],  # nothing can be told
        "free_share": [-0.1, 1.1, NAN],
    },
    SamplingConfig: {
        "num_steps": [0, -3, 2.5],
        "solver": ["rk4", ""],
        "guidance_scale": [-0.5, 101.0, NAN],
        "noise_scale": [-0.1, 2.5, NAN, "crystal=1", "crystal=1, solid=1"],
        "symmetry": ["cubic", ""],
        "step_focus": [-0.1, 1.1],
    },
}


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (cls, name, value)
        for cls, options in OUT_OF_RANGE.items()
        for name, values in options.items()
        for value in values
    ],
)
def test_values_out_of_range_are_refused_with_name_and_value(cls, name, value):
    with pytest.raises(ValueError, match=name) as error:
        cls(**{name: value})
    assert str(value) in str(error.value)


def test_every_number_and_name_has_a_range():
    for cls, options in OUT_OF_RANGE.items():
        assert set(options) == {f.name for f in fields(cls) if f.type != "bool"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identity_start": True}, "canonical"),
        ({"identity_start": True, "canonical": True, "encoder": "equivariant"}, "transformer"),
        ({"identity_start": True, "canonical": True, "latent_dim": 3}, "latent_dim >= 4, got 3"),
        ({"geometry": True, "canonical": True}, "identity_start"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderConfig(**options)


def test_a_denoiser_with_geometry_needs_coordinates_in_the_latents():
    with pytest.raises(ValueError, match=r"denoiser\.geometry needs autoencoder\.identity_start"):
        ModelConfig.from_dict({"denoiser": {"geometry": True}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"decoder": {}}, "unknown model section 'decoder', known: autoencoder, denoiser"),
        ({"denoiser": {"width": 64}}, r"unknown option denoiser\.width, known: .*dim"),
        ({"denoiser": 64}, "'denoiser' must hold options, got 64"),
        ({"denoiser": None}, "'denoiser' must hold options, got None"),
        ({"size": "huge"}, "size must be one of mini, small, base, large, got 'huge'"),
        ({"denoiser": {"dim": 64.0}}, r"denoiser\.dim must be an integer, got 64\.0"),
        ({"denoiser": {"dim": True}}, r"denoiser\.dim must be an integer, got True"),
        ({"denoiser": {"precondition": 1}}, r"denoiser\.precondition must be true or false, got 1"),
        ({"denoiser": {"time_clip": "late"}}, r"denoiser\.time_clip must be a number, got 'late'"),
        ({"denoiser": {"time_clip": False}}, r"denoiser\.time_clip must be a number, got False"),
        ({"sampling": {"solver": 3}}, r"sampling\.solver must be text, got 3"),
        ({"autoencoder": {"kl_weight": "nan"}}, "kl_weight must be zero or positive, got nan"),
    ],
)
def test_unknown_options_and_wrong_types_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(data)


def test_numbers_are_read_as_yaml_gives_them():
    config = ModelConfig.from_dict({"autoencoder": {"kl_weight": "1e-4", "coordinate_weight": 5}})
    assert config.autoencoder.kl_weight == 1e-4
    assert isinstance(config.autoencoder.coordinate_weight, float)
