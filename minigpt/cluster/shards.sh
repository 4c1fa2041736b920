#!/bin/bash
# @name@: the text of a run as tokens, written by @parts@ tasks side by side.
# `minigpt slurm` wrote this script for the run in
#   @run@
#
#   send it          sbatch @script@
#   watch it         squeue --me; tail -f @home@/*.out
#   end it for good  scancel NUMBER
#
# Each task writes its part and goes on where it was stopped; the last one that ends makes one corpus of all parts.


# ---- What it asks of Slurm. Lines with #SBATCH are read by sbatch, as far as the first command. ----

# Its name in squeue, and the folder that it works in: `minigpt slurm` refuses a second job with the same.
#SBATCH --job-name="@name@-shards"
#SBATCH --comment=@comment@
@partition@
@account@
# Tasks with numbers; Slurm starts each as soon as there is room for it. No GPUs.
#SBATCH --array=0-@last_part@
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=@cpus_per_gpu@
# The longest stay of a task (days-hours:minutes:seconds).
#SBATCH --time=@time@
# So many seconds before its end this script gets SIGUSR1 (B: the script itself).
#SBATCH --signal=B:USR1@@warning_seconds@
# Slurm may put a task back into the queue: when another job takes its machine, or when the machine fails.
#SBATCH --requeue
# What each task says, of all its stays one after the other.
#SBATCH --output=@output_pattern@
#SBATCH --open-mode=append


# ---- The work. ----

# The environment in which minigpt is installed.
export PATH=@bin@:$PATH
# Threads that each process of a task takes by itself.
export OMP_NUM_THREADS=1

# What is written is kept at every moment, so a task whose time is over is ended and queued again.
trap 'kill $!; scontrol requeue "$SLURM_JOB_ID"; exit' USR1

@shards@ \
  --folder @quoted_run@ \
  --part "$SLURM_ARRAY_TASK_ID" --parts @parts@ --processes @cpus_per_gpu@ &
wait $!
