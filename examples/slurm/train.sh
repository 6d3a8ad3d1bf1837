#!/bin/bash
# Training on several nodes of a SLURM cluster, one launcher on each node. Not run on a cluster here; what it starts is tested.
#
#   sbatch --nodes 2 examples/slurm/train.sh                                   # video_r1_7b with ZeRO-3
#   sbatch --nodes 2 examples/slurm/train.sh --resume_from_checkpoint true     # go on from its newest whole checkpoint
#   ENGINE=zero2 SCRIPT=train_sft RECIPE=video_r1_7b_sft sbatch --nodes 2 examples/slurm/train.sh
#
# Submit it in the clone, which all nodes must see, as well as data and models; its arguments are flags of the script.
#SBATCH --job-name=videor1
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
set -euo pipefail

ENGINE=${ENGINE:-zero3}
SCRIPT=${SCRIPT:-train_tgrpo}
RECIPE=${RECIPE:-video_r1_7b}
read -r FIRST < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}

# A node whose launcher fails ends the job; `machine_rank` differs from node to node, so that the node's own shell fills it in
srun --kill-on-bad-exit=1 bash -c 'exec accelerate launch "${@:1:12}" --machine_rank "$SLURM_NODEID" "${@:13}"' launch \
    --config_file "examples/configs/accelerate/$ENGINE.yaml" \
    --num_machines "$SLURM_NNODES" \
    --num_processes "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))" \
    --main_process_ip "$FIRST" \
    --main_process_port "$((20000 + SLURM_JOB_ID % 20000))" \
    --rdzv_backend static \
    "examples/$SCRIPT.py" --config "examples/configs/$RECIPE.yaml" "$@"
