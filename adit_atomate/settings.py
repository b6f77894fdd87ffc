"""Settings of a machine: ``ADIT_*`` environment variables and ``~/.adit.yaml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from adit_model.data.phases import KNOWN

DEFAULT_CONFIG_FILE = "~/.adit.yaml"
ENV_PREFIX = "adit_"


class ADiTSettings(BaseSettings):
    """What depends on the machine and not on the scientific question.

    Each field can be set in ``~/.adit.yaml`` (or the file that ``ADIT_CONFIG_FILE`` names), as in
    ``DEVICE: cuda``, or by an environment variable with the prefix ``ADIT_``, as in
    ``ADIT_DEVICE=cuda``, which goes first. They are read anew each time an instance is made.
    """

    CONFIG_FILE: str = Field(
        DEFAULT_CONFIG_FILE, description="File to load alternative defaults from."
    )
    CHECKPOINT: str = Field(
        "default",
        min_length=1,
        description="Checkpoint name or path of Makers that are not given one.",
    )
    DEVICE: str = Field(
        "auto",
        min_length=1,
        description="Device of jobs whose Maker says 'auto': 'auto' (a GPU if there is one), "
        "'cpu', 'cuda' or 'cuda:1'.",
    )
    BATCH_ATOMS: PositiveInt | None = Field(
        None,
        description="Atoms of a sampling batch in jobs whose Maker does not say; None leaves it "
        "to the model.",
    )
    SAMPLE_WORKERS: PositiveInt | None = Field(
        None,
        description="Threads that share the batches of a sampling job on a CPU; None takes the "
        "cores that may be used (OMP_NUM_THREADS, affinity, limits of a container).",
    )
    CHECK_WORKERS: PositiveInt | None = Field(
        None,
        description="Processes of the checks of structures; None takes the available cores, fewer "
        "for few samples.",
    )
    CHECK_TIME_LIMIT: PositiveFloat = Field(
        10.0,
        description="Seconds each check of one sample may take; without an answer by "
        "then it has not passed.",
    )
    REFERENCE: str | list[str] | None = Field(
        KNOWN,
        description="Known structures that discovery flows compare to: 'known', the crystals and "
        "molecules of the package; a path or the name of a data set, or a list of them; 'none'.",
    )
    HULL: str | list[str] | None = Field(
        KNOWN,
        description="Known phases that discovery flows build the convex hull from: 'known', those "
        "of the package; a CSV file, a list of them, or 'materials-project'; 'none': there is no "
        "energy above hull.",
    )
    TRAINING_DIR: str = Field(
        "~/adit-training",
        min_length=1,
        description="Folder of training runs that are given no output folder, each under its job's "
        "uuid; it must be seen by all machines that may go on with a run.",
    )

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _read_config_file(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Put the file's values below those of the environment and of the caller."""
        import yaml

        named = values.get("CONFIG_FILE")
        path = Path(os.path.expanduser(named or DEFAULT_CONFIG_FILE))
        if not path.is_file():
            if named:
                raise ValueError(f"ADIT_CONFIG_FILE names {path}, which does not exist")
            return values
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, RecursionError, OSError) as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from None
        if content is None:
            return values
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold 'NAME: value' lines, got {type(content).__name__}")
        return {**{str(name): value for name, value in content.items()}, **values}


def check_workers(number: int) -> int:
    """Return the worker processes for a number of checks, as the settings have it."""
    from adit_model.quality.records import worker_count

    return ADiTSettings().CHECK_WORKERS or worker_count(number)


def check_fields(maker: Any, **kinds: type) -> None:
    """Refuse fields of a Maker that are of another kind, such as a class instead of a Maker.

    Raises
    ------
    TypeError
        If one is; the text names it.
    """
    for name, kind in kinds.items():
        value = getattr(maker, name)
        if not isinstance(value, kind):
            article = "an" if kind.__name__[0] in "Aa" else "a"
            raise TypeError(
                f"{name} of {type(maker).__name__} must be {article} {kind.__name__}, "
                f"got {repr(value)[:80]}"
            )
