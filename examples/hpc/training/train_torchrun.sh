#!/bin/bash
# As train.sh, with torchrun, which starts the processes of each node and passes no signal on: the
# run stops itself by max_time.
#   sbatch train_torchrun.sh denoiser mine.yaml
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:4
#SBATCH --time=12:00:00

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Lightning asks SLURM for its processes unless the job's name says interactive.
export SLURM_JOB_NAME=interactive
srun torchrun --nnodes 2 --nproc-per-node 4 \
    --rdzv-backend c10d --rdzv-endpoint "$head_node:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m adit_model.cli train "$1" --config "$2" --resume --quiet \
    "$1.devices=4" "$1.num_nodes=2" "$1.accelerator=gpu" "$1.precision=bf16" "$1.max_time=11:30:00"
