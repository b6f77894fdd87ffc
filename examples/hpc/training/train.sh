#!/bin/bash
# Train a stage on two nodes of four GPUs without jobflow; sbatch it again to go on:
#   sbatch train.sh denoiser mine.yaml
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@600

srun adit train "$1" --config "$2" --resume --quiet \
    "$1.devices=4" "$1.num_nodes=2" "$1.accelerator=gpu" "$1.precision=bf16"
