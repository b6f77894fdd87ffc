"""Submit a discovery flow to jobflow-remote: generation on a GPU, everything else on CPUs.

    python submit.py -n 100 [--build-only]

Set-up, once: fill in adit.yaml beside this file, copy it to ~/.jfremote, then

    jf project check -e
    jf admin reset --yes
    jf runner start

Afterwards `jf job list` shows the jobs, and `jf job rerun` starts one again that failed; finished
ones stay.
"""

import argparse

from jobflow import Flow
from qtoolkit.core.data_objects import QResources

from adit_atomate import ADiTGenerateMaker, ADiTGenerateShardsMaker
from adit_atomate.discovery.flow import ADiTDiscoveryMaker
from adit_atomate.powerups import assign_workers, remote_worker


def make_flow(n: int, samples_per_job: int) -> Flow:
    shards = ADiTGenerateShardsMaker(
        generate_maker=ADiTGenerateMaker(domain="crystal", seed=1),
        samples_per_job=samples_per_job,
    )
    flow = ADiTDiscoveryMaker(generate_maker=shards, keep=10).make(n=n)
    one_hour = QResources(queue_name="gpu", processes=1, gpus_per_job=1, time_limit=3600)
    return assign_workers(flow, gpu=remote_worker("gpu", one_hour), cpu=remote_worker("cpu"))


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
