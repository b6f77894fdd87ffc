"""Submit a discovery flow to FireWorks: generation and relaxation on a GPU.

    python submit.py -n 100

Set-up, once, on the cluster:

1. Fill in the files beside this one: my_launchpad.yaml (the MongoDB of the queue), jobflow.yaml
   (where results go), my_fworker_*.yaml and my_qadapter_*.yaml (the partitions of your SLURM).
2. export JOBFLOW_CONFIG_FILE=$PWD/jobflow.yaml, here and in pre_rocket of my_qadapter_*.yaml.
3. lpad -l my_launchpad.yaml reset

Then submit, and keep one of these running for each kind of worker, on the login node:

    qlaunch -r -l my_launchpad.yaml -w my_fworker_gpu.yaml -q my_qadapter_gpu.yaml rapidfire -m 2 --nlaunches infinite
    qlaunch -r -l my_launchpad.yaml -w my_fworker_cpu.yaml -q my_qadapter_cpu.yaml rapidfire -m 20 --nlaunches infinite
    qlaunch -r -l my_launchpad.yaml -w my_fworker_light.yaml -q my_qadapter_light.yaml rapidfire -m 5 --nlaunches infinite

After a crash or a time limit, run the lost and the failed jobs again. Finished jobs stay:

    lpad -l my_launchpad.yaml detect_lostruns --time 14400 --rerun
    lpad -l my_launchpad.yaml rerun_fws -s FIZZLED
"""  # noqa: E501

import argparse
from pathlib import Path

from fireworks import LaunchPad
from jobflow import Flow
from jobflow.managers.fireworks import flow_to_workflow

from adit_atomate import ADiTGenerateMaker, ADiTGenerateShardsMaker
from adit_atomate.discovery.flow import ADiTDiscoveryMaker
from adit_atomate.powerups import GPU_JOBS, RELAX_JOBS, assign_workers, fireworks_worker

HERE = Path(__file__).resolve().parent


def make_flow(n: int, samples_per_job: int) -> Flow:
    shards = ADiTGenerateShardsMaker(
        generate_maker=ADiTGenerateMaker(domain="crystal", seed=1),
        samples_per_job=samples_per_job,
    )
    flow = ADiTDiscoveryMaker(generate_maker=shards, keep=10).make(n=n)
    # A dft_maker of atomate2 runs on the CPU worker; see docs/hpc.md.
    return assign_workers(
        flow,
        gpu=fireworks_worker("gpu", queue={"walltime": "01:00:00"}),
        cpu=fireworks_worker("cpu"),
        light=fireworks_worker("light"),
        gpu_jobs=(*GPU_JOBS, *RELAX_JOBS),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit a discovery flow to FireWorks.")
    parser.add_argument("-n", type=int, default=100, help="samples (default %(default)s)")
    parser.add_argument("--samples-per-job", type=int, default=1000, help="default %(default)s")
    parser.add_argument("--launchpad", default=HERE / "my_launchpad.yaml", help="its file")
    args = parser.parse_args()

    flow = make_flow(args.n, args.samples_per_job)
    launchpad = LaunchPad.from_file(str(args.launchpad))
    ids = launchpad.add_wf(flow_to_workflow(flow))
    print(f"{flow.name}: {len(ids)} Fireworks, result in job {flow.output.uuid}")


if __name__ == "__main__":
    main()
