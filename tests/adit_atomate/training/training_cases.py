"""A tiny model and data for the tests of training jobs; also run as a process of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from monty.json import MontyDecoder

TINY = {
    "size": "mini",
    "autoencoder": {
        "dim": 16,
        "num_heads": 2,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "num_elements": 60,
    },
    "denoiser": {"dim": 16, "num_heads": 2, "num_layers": 2},
    "sampling": {"num_steps": 3},
}
SCHEDULE = {
    "steps": 6,
    "batch_size": 6,
    "crystal_fraction": 0.5,
    "learning_rate": 2e-3,
    "warmup_steps": 3,
    "log_every": 1,
    "validate_every": 3,
    "accelerator": "cpu",
}


def options(**schedule: Any) -> dict[str, Any]:
    """Fields of a Maker that trains a stage."""
    return {"model": TINY, "training": {**SCHEDULE, **schedule}}


def last_output(responses: dict[str, Any], job: Any) -> Any:
    """Output of the last job of a chain."""
    return responses[job.uuid][max(responses[job.uuid])].output


def main() -> None:
    """Run the job in the file that is named, in the current folder; print its last document."""
    from jobflow import JobStore, run_locally
    from maggma.stores import MemoryStore

    Path("pid").write_text(str(os.getpid()))
    job = json.loads(Path(sys.argv[1]).read_text(), cls=MontyDecoder)
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    responses = run_locally(job, store=store, ensure_success=True)
    print(last_output(responses, job).model_dump_json())


if __name__ == "__main__":
    main()
