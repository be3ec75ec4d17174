#!/bin/bash
# Sixteen shares of a run's teachers and targets, one GPU each (docs/several-machines.md):
#   sbatch examples/launch/slurm-teachers.sh my-run.yaml
# Submit it again, whole or with --array=3,7 for some of the tasks: what is in the cache is not made again.
#SBATCH --job-name=cldistill-teachers
#SBATCH --array=0-15
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

export CLDISTILL_CACHE="${CLDISTILL_CACHE:-$HOME/cldistill-cache}"   # on a file system that all nodes see

# The share comes from Slurm's own variables; SIGTERM two minutes before the end saves what is under way.
srun cldistill teachers "$1" --targets
