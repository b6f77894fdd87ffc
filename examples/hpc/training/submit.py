"""Train on two nodes of four GPUs through jobflow-remote, in as many jobs as it takes.

    python submit.py my_structures/ [--build-only]

Each job has twelve hours and stops by itself half an hour before the end; the next goes on from its
state. ADIT_TRAINING_DIR must be a folder that all nodes see. The project and its workers are
described in ../jobflow_remote/adit.yaml.
"""

import argparse

from jobflow import Flow
from jobflow_remote import set_run_config
from qtoolkit.core.data_objects import QResources

from adit_atomate import ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker, ADiTTrainMaker

HARDWARE = {"devices": 4, "num_nodes": 2, "accelerator": "gpu", "precision": "bf16"}


def make_flow(sources: list[str]) -> Flow:
    # The job script runs once; srun in it starts a process for each GPU of both nodes.
    limits = {"model": {"size": "base"}, "max_time": "11:30:00", "launcher": "srun"}
    schedule = {**HARDWARE, "batch_size": 1024}
    flow = ADiTTrainMaker(
        autoencoder_maker=ADiTTrainAutoencoderMaker(
            training={**schedule, "steps": 200_000}, **limits
        ),
        denoiser_maker=ADiTTrainDenoiserMaker(training={**schedule, "steps": 500_000}, **limits),
    ).make(sources)
    nodes = QResources(
        queue_name="gpu",
        account="my_account",
        nodes=2,
        processes_per_node=4,
        threads_per_process=8,
        time_limit=12 * 3600,
        scheduler_kwargs={"gres": "gpu:4"},
    )
    for stage in ("autoencoder", "denoiser"):
        flow = set_run_config(flow, name_filter=stage, worker="gpu", resources=nodes)
    return flow


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit a training flow to jobflow-remote.")
    parser.add_argument("sources", nargs="+", help="files, folders and names of data sets")
    parser.add_argument("--build-only", action="store_true", help="show the jobs, submit nothing")
    args = parser.parse_args()

    flow = make_flow(args.sources)
    if args.build_only:
        for job, _ in flow.iterflow():
            print(f"{job.name}: {job.config.manager_config.get('worker', 'the default worker')}")
        return
    from jobflow_remote import submit_flow

    print(f"{flow.name}: jobs {submit_flow(flow, project='adit', worker='cpu')}")


if __name__ == "__main__":
    main()
