#!/bin/bash
# A sweep on a Ray cluster inside one Slurm allocation: `sbatch docs/cluster/ray-on-slurm.sh GRID [OPTIONS]`.
# Use it if the cluster allocates only whole nodes, or for `psa search` (PSA_COMMAND=search). Otherwise use
# `psa sweep --backend slurm`, which needs neither Ray nor an allocation.
#SBATCH --job-name=psa-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=30
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

port=${RAY_PORT:-6379}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# --block keeps the job step alive as long as Ray runs; when the step ends, Slurm ends its processes
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep "${RAY_START_SECONDS:-15}"
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
    sleep "${RAY_START_SECONDS:-15}"
fi

psa "${PSA_COMMAND:-sweep}" "$@" --backend ray --address "$address:$port" &
sweep=$!
# near the time limit the sweep saves its state, and Slurm starts this script again
trap 'kill -TERM $sweep; wait $sweep || true; scontrol requeue "$SLURM_JOB_ID"' USR2
trap 'kill -TERM $sweep; wait $sweep || true; exit 143' TERM
wait $sweep
