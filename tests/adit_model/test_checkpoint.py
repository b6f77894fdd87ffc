"""Checkpoint files: exact round trips, and an error of its own for each way to be unusable."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adit_model.checkpoint import (
    BUNDLED,
    FORMAT_VERSION,
    METADATA_KEY,
    ORDERS,
    CheckpointError,
    content_hash,
    metadata_hash,
    read_checkpoint,
    read_known,
    read_metadata,
    resolve_checkpoint,
    write_checkpoint,
)
from adit_model.conditions.atoms import ElementOrders
from adit_model.conditions.known import Known
from adit_model.model import ADiT

CONFIG = {"width": 3}
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2, 3])}
METADATA = {"config": CONFIG, "known": {"sizes": {}}, "licence": "MIT"}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two tensors with metadata: small enough to damage byte by byte."""
    path = tmp_path / "small.safetensors"
    write_checkpoint(path, TENSORS, METADATA)
    return path


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]):
    """Copy a checkpoint with other tensors or metadata and the hashes that belong to them."""
    tensors, metadata, orders = read_checkpoint(source)
    tables = {k: torch.from_numpy(v) for k, v in orders.to_arrays().items()}
    tables = {ORDERS + name: table for name, table in tables.items()}
    change(tensors, metadata)
    metadata["hash"] = content_hash(tensors, metadata["config"])
    if metadata["format_version"] > 1 and orders.histogram:
        tensors |= tables
    metadata["metadata_hash"] = metadata_hash(metadata)
    save_file(tensors, target, {METADATA_KEY: json.dumps(metadata)})
    return target


# round trips


def test_round_trip_is_exact(tiny_checkpoint, tmp_path):
    model = ADiT.load(tiny_checkpoint, device="cpu")
    path = tmp_path / "folder" / "again.safetensors"
    found = model.save(path, {"training": {"steps": 7, "loss": 0.1 + 0.2}})
    again = ADiT.load(path, device="cpu")
    assert again.config == model.config
    assert again.known == model.known
    assert again.metadata == model.metadata
    assert again.metadata["training"] == {"steps": 7, "loss": 0.1 + 0.2}
    assert again.checkpoint_hash == found == model.checkpoint_hash
    state, expected = again.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    assert not again.training
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing half-written is left


def test_the_bytes_of_a_file_depend_on_its_content_alone(tiny_checkpoint, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    ADiT.load(tiny_checkpoint).save(first)
    ADiT.load(first).save(second)
    assert first.read_bytes() == second.read_bytes() == tiny_checkpoint.read_bytes()


def test_the_hash_names_weights_and_config(small, tmp_path):
    original = read_metadata(small)["hash"]
    other = tmp_path / "other.safetensors"
    assert write_checkpoint(other, TENSORS, {**METADATA, "training": {"steps": 1}}) == original
    assert write_checkpoint(other, TENSORS, {**METADATA, "config": {"width": 4}}) != original
    changes = {
        "value": TENSORS["a"].index_fill(1, torch.tensor([2]), -0.0),
        "shape": TENSORS["a"].reshape(3, 2),
        "dtype": TENSORS["a"].view(torch.int32),
    }
    hashes = {
        name: write_checkpoint(other, {**TENSORS, "a": tensor}, METADATA)
        for name, tensor in changes.items()
    }
    assert len({original, *hashes.values()}) == 4
    transposed = TENSORS["a"].T.contiguous().T  # the same values in another memory layout
    assert write_checkpoint(other, {**TENSORS, "a": transposed}, METADATA) == original


def test_half_precision_halves_the_file_and_loads_as_single(tiny_checkpoint, tmp_path):
    model = ADiT.load(tiny_checkpoint, device="cpu")
    path = tmp_path / "half.safetensors"
    found = model.save(path, half=True)
    stored = load_file(path)
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    again = ADiT.load(path, device="cpu")
    assert again.checkpoint_hash == found
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=2**-11, atol=2**-25)
    samples = again.sample(4, seed=1, progress=False)
    assert len(samples) == 4


def test_weights_that_half_precision_cannot_hold_are_refused(tiny_checkpoint, tmp_path):
    model = ADiT.load(tiny_checkpoint, device="cpu")
    with torch.no_grad():
        model.autoencoder.decoder.frac_head.bias[0] = 7e4
    path = tmp_path / "half.safetensors"
    with pytest.raises(ValueError, match=r"autoencoder\.decoder\.frac_head\.bias.*half=False"):
        model.save(path, half=True)
    assert not path.exists()
    model.save(path)


def test_a_first_stage_alone(tiny_checkpoint, tmp_path):
    config = ADiT.load(tiny_checkpoint).config
    path = tmp_path / "stage1.safetensors"
    ADiT(config, Known({"crystal": {4: 1}}), with_denoiser=False).save(path)
    model = ADiT.load(path)
    assert model.denoiser is None
    assert model.known.sizes == {"crystal": {4: 1}}
    assert model.domains == ("crystal",)
    assert model.metadata["licence"] == "MIT"


def test_a_failed_save_leaves_the_old_file(small):
    before = small.read_bytes()
    with pytest.raises(TypeError):
        write_checkpoint(small, TENSORS, {**METADATA, "training": object()})
    assert small.read_bytes() == before
    assert list(small.parent.iterdir()) == [small]


def test_metadata_are_read_without_the_tensors(small):
    metadata = read_metadata(small)
    assert metadata["config"] == CONFIG
    assert metadata["format_version"] == FORMAT_VERSION
    assert len(metadata["hash"]) == 64


# format 1, and what a file may ask of its reader


def as_format_1(source: Path, target: Path, orders: dict[str, int]) -> Path:
    def change(tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
        sizes = metadata.pop("known")["sizes"]
        del metadata["orders_hash"]
        metadata["format_version"] = 1
        metadata["statistics"] = {"sizes": sizes, "element_orders": {"molecule": orders}}

    return rewrite(source, target, change)


def test_format_1_becomes_format_2_with_the_same_samples(tiny_checkpoint, tmp_path):
    orders = {"OH2": 3, "CHN": 2, "C2H3": 1}
    old = as_format_1(tiny_checkpoint, tmp_path / "old.safetensors", orders)
    model = ADiT.load(old, device="cpu")
    assert model.element_orders.histogram == orders
    assert model.known.elements["molecule"] == (1, 6, 7, 8)
    assert "statistics" not in model.metadata
    new = tmp_path / "new.safetensors"
    model.save(new)
    again = ADiT.load(new, device="cpu")
    assert again.metadata["format_version"] == FORMAT_VERSION == 2
    assert again.known == model.known == read_known(old)[0] == read_known(new)[0]
    assert again.element_orders.histogram == orders
    assert again.checkpoint_hash == model.checkpoint_hash  # of the weights alone
    assert b"OH2" not in new.read_bytes()
    for a, b in zip(*(m.sample(4, seed=1, progress=False) for m in (model, again)), strict=True):
        np.testing.assert_array_equal(a.decoded["numbers"], b.decoded["numbers"])


def test_orders_of_elements_are_guarded_by_a_hash(tmp_path):
    path = tmp_path / "orders.safetensors"
    write_checkpoint(path, TENSORS, METADATA, ElementOrders({"CH4": 3, "OH2": 5}))
    assert read_checkpoint(path)[2].histogram == {"OH2": 5, "CH4": 3}
    stored, text = load_file(path), json.dumps(read_metadata(path))
    stored[ORDERS + "counts"][0] += 1
    save_file(stored, path, {METADATA_KEY: text})
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)
    save_file(TENSORS, path, {METADATA_KEY: text})
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("section", "option", "value", "text"),
    [
        ("denoiser", "dim", 2_000_000, "shape|must"),
        ("autoencoder", "dim", 2_000_000, "shape|must"),
        ("denoiser", "dim", 2 * 10**30, "no possible size"),
        ("denoiser", "num_layers", 900_000_000, "asks for|must"),
        ("autoencoder", "num_elements", 1_000_000_000, "shape|must"),
        ("sampling", "num_steps", 1_000_000_000, "must"),
    ],
)
def test_no_small_file_asks_for_much_memory(
    tiny_checkpoint, tmp_path, section, option, value, text
):
    path = rewrite(
        tiny_checkpoint,
        tmp_path / "greedy.safetensors",
        lambda _, m: m["config"][section].update({option: value}),
    )
    with pytest.raises(CheckpointError, match=text):
        ADiT.load(path)


def test_atom_counts_and_orders_beyond_all_reason_are_refused(tiny_checkpoint, tmp_path):
    path = rewrite(
        tiny_checkpoint,
        tmp_path / "large.safetensors",
        lambda _, m: m["known"]["sizes"].update(crystal={"1000000000": 1}),
    )
    for reader in (ADiT.load, read_known):
        with pytest.raises(CheckpointError, match=r"1 crystals of 1000000000 atoms"):
            reader(path)
    path = rewrite(
        tiny_checkpoint,
        tmp_path / "endless.safetensors",
        lambda _, m: m["known"]["sizes"].update(crystal={"3": float("inf")}),
    )
    for reader in (ADiT.load, read_known):
        with pytest.raises(CheckpointError, match="what the weights know is not readable"):
            reader(path)
    path = as_format_1(tiny_checkpoint, tmp_path / "orders.safetensors", {"C1000000000": 1})
    with pytest.raises(CheckpointError, match="are no order of elements"):
        ADiT.load(path)


@pytest.mark.parametrize("levels", [300, 100_000])
def test_metadata_nested_without_end_are_refused(small, levels):
    text = '{"format_version": 2, "config": ' + "[" * levels + "]" * levels + "}"
    save_file(TENSORS, small, {METADATA_KEY: text})
    with pytest.raises(CheckpointError, match="unreadable metadata"):
        read_metadata(small)


# names


def test_an_unknown_name_lists_the_known_ones(clean_dir):
    with pytest.raises(CheckpointError, match=r"no checkpoint 'defalt'.*default, mini"):
        resolve_checkpoint("defalt")
    with pytest.raises(CheckpointError, match=r"no checkpoint '/nowhere/x\.safetensors'"):
        ADiT.load("/nowhere/x.safetensors")
    with pytest.raises(CheckpointError, match="neither a file"):
        resolve_checkpoint(clean_dir)  # a folder
    assert set(BUNDLED) == {"default", "mini", "mini-2"}


def test_a_path_may_start_at_home(small, monkeypatch):
    monkeypatch.setenv("HOME", str(small.parent))
    assert resolve_checkpoint(f"~/{small.name}") == small


# unusable files


def test_every_truncation_is_noticed(small):
    content = small.read_bytes()
    for size in range(len(content)):
        small.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"cut off|no safetensors file"):
            read_metadata(small)
    small.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=f"cut off: {len(content) - 1} bytes of at least"):
        read_checkpoint(small)


def test_every_changed_byte_is_noticed(small):
    content = small.read_bytes()
    rng = np.random.default_rng(0)
    for place, flip in enumerate(rng.integers(1, 256, len(content))):
        damaged = bytearray(content)
        damaged[place] ^= int(flip)
        small.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_checkpoint(small)
    damaged = bytearray(content)
    damaged[-1] ^= 1
    small.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="is damaged: its content has hash"):
        read_checkpoint(small)
    small.write_bytes(content.replace(b"MIT", b"GPL"))
    with pytest.raises(CheckpointError, match="is damaged: its metadata do not match their hash"):
        read_metadata(small)


def test_appended_bytes_are_noticed(small):
    small.write_bytes(small.read_bytes() + b"\0" * 8)
    with pytest.raises(CheckpointError):
        read_checkpoint(small)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"something else altogether",
        b"\x80\x02}q\x00.",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (6).to_bytes(8, "little") + b'{"a":1',
        (14).to_bytes(8, "little") + b'{"a":{"b": 1}}',
    ],
)
def test_other_files_are_no_safetensors_files(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        ADiT.load(path)


class _Trap:
    def __reduce__(self):
        return open, ("sprung", "w")


@pytest.mark.parametrize("writer", ["pickle", "torch", "torch legacy"])
def test_nothing_is_ever_unpickled(clean_dir, writer):
    path = clean_dir / "weights.safetensors"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(_Trap()))
    else:
        torch.save(_Trap(), path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(CheckpointError, match=r"\.ckpt or \.pt, cannot be loaded"):
        ADiT.load(path)
    assert not Path("sprung").exists()
    with path.open("rb") as file:  # the trap would have worked
        torch.load(file, weights_only=False) if writer != "pickle" else pickle.load(file)
    assert Path("sprung").exists()


def test_safetensors_of_another_program(tmp_path):
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file(TENSORS, path, metadata)
        with pytest.raises(CheckpointError, match="not a checkpoint of ADiT"):
            read_metadata(path)
    for text in ("{", "[]", "3", "{}", '{"format_version": "new"}'):
        save_file(TENSORS, path, {METADATA_KEY: text})
        with pytest.raises(CheckpointError, match="unreadable metadata"):
            read_metadata(path)


def test_a_newer_format_asks_for_an_update(small, tmp_path):
    newer = rewrite(
        small, tmp_path / "newer", lambda _, m: m.update(format_version=FORMAT_VERSION + 1)
    )
    with pytest.raises(CheckpointError, match=f"format {FORMAT_VERSION + 1}.*update adit-atomate"):
        read_metadata(newer)


def test_missing_metadata_are_named(small, tmp_path):
    without = rewrite(small, tmp_path / "without", lambda _, m: [m.pop("known"), m.pop("licence")])
    with pytest.raises(CheckpointError, match="lacks the metadata known, licence"):
        read_metadata(without)


def test_tensors_that_do_not_belong_to_the_config(tiny_checkpoint, tmp_path):
    name = "denoiser.output.weight"
    target = tmp_path / "changed.safetensors"
    changes = {
        f"lacks 1 tensors, the first is '{name}'": lambda t, _: t.pop(name),
        "holds 2 unknown tensors, the first is 'extra'": lambda t, _: t.update(
            extra=torch.zeros(1), more=torch.zeros(1)
        ),
        rf"{name} has shape \(3, 3\), the configuration says \(8, 16\)": lambda t, _: t.update(
            {name: torch.zeros(3, 3)}
        ),
        r"unknown configuration: unknown option denoiser\.depth": lambda _, m: m["config"][
            "denoiser"
        ].update(depth=3),
        "unknown configuration: dim must be positive": lambda _, m: m["config"]["denoiser"].update(
            dim=0
        ),
        "unknown configuration": lambda _, m: m.update(config=[1, 2]),
    }
    for text, change in changes.items():
        rewrite(tiny_checkpoint, target, change)
        with pytest.raises(CheckpointError, match=text):
            ADiT.load(target)


def test_weights_that_are_not_finite_are_refused(tiny_checkpoint, tmp_path):
    def spoil(tensors: dict[str, Any], _: dict[str, Any]) -> None:
        tensors["denoiser.output.bias"][2] = torch.nan

    path = rewrite(tiny_checkpoint, tmp_path / "nan.safetensors", spoil)
    with pytest.raises(CheckpointError, match=r"denoiser\.output\.bias .*not finite"):
        ADiT.load(path)


def test_an_absent_device_is_an_error(tiny_checkpoint):
    with pytest.raises(ValueError, match="unknown device 'tricorder'"):
        ADiT.load(tiny_checkpoint, device="tricorder")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="finds no CUDA GPU"):
            ADiT.load(tiny_checkpoint, device="cuda")
