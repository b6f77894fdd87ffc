"""Submit a discovery flow to jobflow-remote: generation and relaxation on a GPU.

    python submit.py -n 100 [--build-only]

Set-up, once: fill in adit.yaml beside this file, copy it to ~/.jfremote, then

    jf project check -e
    jf admin reset --yes
    jf runner start

Afterwards `jf job list` shows the jobs, and `jf job rerun` runs a failed job again. Finished jobs
stay.
"""

import argparse

from jobflow import Flow

from adit_atomate import ADiTGenerateMaker, ADiTGenerateShardsMaker
from adit_atomate.discovery.flow import ADiTDiscoveryMaker
from adit_atomate.powerups import GPU_JOBS, RELAX_JOBS, assign_workers


def make_flow(n: int, samples_per_job: int) -> Flow:
    shards = ADiTGenerateShardsMaker(
        generate_maker=ADiTGenerateMaker(domain="crystal", seed=1),
        samples_per_job=samples_per_job,
    )
    flow = ADiTDiscoveryMaker(generate_maker=shards, keep=10).make(n=n)
    # Each job gets the resources that adit.yaml gives its worker. Those of remote_worker("gpu",
    # resources) would replace all of them: repeat account, cores and time there.
    return assign_workers(
        flow, gpu="gpu", cpu="cpu", light="light", gpu_jobs=(*GPU_JOBS, *RELAX_JOBS)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit a discovery flow to jobflow-remote.")
    parser.add_argument("-n", type=int, default=100, help="samples (default %(default)s)")
    parser.add_argument("--samples-per-job", type=int, default=1000, help="default %(default)s")
    parser.add_argument("--build-only", action="store_true", help="show the jobs, submit nothing")
    args = parser.parse_args()

    flow = make_flow(args.n, args.samples_per_job)
    if args.build_only:
        for job, _ in flow.iterflow():
            print(f"{job.name}: {job.config.manager_config['worker']}")
        return
    from jobflow_remote import submit_flow

    print(f"{flow.name}: jobs {submit_flow(flow, project='adit')}")


if __name__ == "__main__":
    main()
