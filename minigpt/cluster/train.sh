#!/bin/bash
# @name@: a run of @parameters@ parameters on @machines@.
# `minigpt slurm` wrote this script for the run in
#   @run@
#
#   send it          sbatch @script@
#   watch it         squeue --me; tail -f @output@
#   end it for good  scancel NUMBER
#
# The job comes back by itself, under the same number, until the run is finished: when another job takes its
# machines, when its time is over, when a machine, a rank or a disk fails. Change what you like and send it again.


# ---- What it asks of Slurm. Lines with #SBATCH are read by sbatch, as far as the first command. ----

# Its name in squeue, and the folder that it works in: `minigpt slurm` refuses a second job for the same folder.
#SBATCH --job-name="@name@"
#SBATCH --comment=@comment@
@partition@
@account@
# Machines, and one process (rank) for each GPU.
#SBATCH --nodes=@nodes@
#SBATCH --ntasks-per-node=@gpus_per_node@
@gpus@# Processor cores of each rank, and all the memory of each machine.
#SBATCH --cpus-per-task=@cpus_per_gpu@
#SBATCH --mem=0
# The longest stay at a time (days-hours:minutes:seconds).
#SBATCH --time=@time@
# So many seconds before the end of a stay every rank gets SIGUSR1: it saves a checkpoint and stops.
#SBATCH --signal=USR1@@warning_seconds@
# Slurm may put the job back into the queue: when another job takes its machines, or when one of them fails.
#SBATCH --requeue
# What this script says goes here, of all stays one after the other.
#SBATCH --output=@output_pattern@
#SBATCH --open-mode=append


# ---- Where things are. ----

run=@quoted_run@
# Each stay on the cluster has a folder of its own, with one log for each rank.
stay=$run/slurm/$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
mkdir -p "$stay"
rm -f "$stay"/exit-* "$stay"/unhealthy
# The environment in which minigpt is installed.
export PATH=@bin@:$PATH
# Threads of each rank; without this each would take all cores.
export OMP_NUM_THREADS=@cpus_per_gpu@
# srun does not hear of --cpus-per-task from sbatch.
export SRUN_CPUS_PER_TASK=@cpus_per_gpu@
@vendor@# Where the ranks meet: at the address of the first machine, at a port of this job's own.
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste --serial --delimiters=,)
MASTER_ADDR=$(scontrol --oneliner show node "${nodes%%,*}" | grep -o 'NodeAddr=[^ ]*' | cut -d = -f 2)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export run stay nodes MASTER_ADDR MASTER_PORT


# ---- How it comes back. ----

say() { echo "$(date '+%F %T') $*"; }

# A person has to look.
give_up() {
  say "The job stays away: $1."
  exit 1
}

# A job that was cancelled, or that Slurm itself puts back into the queue, is COMPLETING, but not for its time limit.
is_being_ended() {
  case $(squeue --noheader --jobs "$SLURM_JOB_ID" --format '%T %r') in
    *TimeLimit) return 1 ;;
    COMPLETING* | CANCELLED*) return 0 ;;
    *) return 1 ;;
  esac
}

# Back into the queue under the same number; Slurm waits two minutes before it starts a job again.
come_back() {
  is_being_ended && exit 1
  say "The job comes back: $1."
  for pause in 0 10 60; do
    sleep $pause
    scontrol requeue "$SLURM_JOB_ID" && exit
  done
  give_up "Slurm does not take it; send it again with sbatch"
}

# Come back after a fault, but not for ever: those count that have no new checkpoint between them.
fault() {
  is_being_ended && exit 1
  local faults=$run/slurm/faults.$SLURM_JOB_ID newest count
  newest=$(printf '%s\n' "$run"/checkpoints/step-*[0-9] | sort --version-sort | tail --lines=1)
  newest=${newest##*/}
  echo "$newest" >> "$faults" || give_up "$1, and $run/slurm takes not one more line"
  count=$(grep --count --line-regexp --fixed-strings -- "$newest" "$faults")
  ((count <= @faults@)) || give_up "$1, and that is fault $count without a new checkpoint"
  come_back "$1 (fault $count of @faults@ without a new checkpoint)"
}

# Come back after a step ahead of training that failed. Slurm's signals end such a step: 128 + 10 or 15.
not_begun() {
  ((code == 138 || code == 143)) && come_back "it was told to stop before the training began"
  fault "$1 ended with exit code $code"
}

# Go on without some machines: as a new job, because a job that has begun cannot say which machines it does not want.
go_without() {
  (($# * 2 <= SLURM_NNODES)) || give_up "the health check names more than half of the machines"
  printf '%s\n' "$@" >> "$run/slurm/avoid"
  say "A new job goes on without $*."
  local avoid
  avoid=$(sort --unique "$run/slurm/avoid" | paste --serial --delimiters=,)
  env --unset=SLURM_RESTART_COUNT sbatch --exclude="$avoid" @script@
  exit 1
}

# SIGTERM comes to this script when a stay ends whatever the ranks do.
trap 'fault "the ranks had not stopped when the stay ended"' TERM

# Run something on the machines and wait for it, with an ear for signals. When a rank has ended, the others have a
# minute to end as well.
on_ranks() {
  srun --distribution=block --kill-on-bad-exit=0 --wait=60 "$@" &
  wait $!
}


# ---- What each rank does, in a shell of its own. ----

# Its place among the ranks, in the variables that torchrun sets too.
find_place() {
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS
  export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$((SLURM_NTASKS / SLURM_NNODES))
@vendor_place@}

# Exit code 69: a GPU or a link is missing, wrong or slow; $stay/unhealthy says which machines it belongs to.
check() {
  find_place
  exec python -m minigpt.cluster.health --device @device@ --slow @slow@ --nodes "$nodes" "$stay"
}

@stage@# On from the newest checkpoint. Slurm's signals reach this shell too: it waits for its rank and notes how that ended.
train() {
  find_place
  trap : USR1 TERM
@shards@  @train@ \
    --folder "$run" --shards "$shards"
  local code=$?
  echo $code > "$stay/exit-$RANK"
  return $code
}

export -f find_place check @stage_name@train


# ---- The work. ----

say "Stay ${SLURM_RESTART_COUNT:-0} of job $SLURM_JOB_ID on $SLURM_JOB_NODELIST; its logs are in $stay"

# Is every GPU and every link there, right and as fast as the others? The check has limits of its own: a rank that ends
# early must not end the others before the first of them has judged.
on_ranks --wait=600 bash -c check
code=$?
if [[ -s $stay/unhealthy ]]; then
  mapfile -t unhealthy < "$stay/unhealthy"
  go_without "${unhealthy[@]}"
fi
((code == 0)) || not_begun "the health check"
@staging@
# What the exit codes of `minigpt train` mean: 0 the run is finished; 75 a signal stopped it, with a checkpoint; 74 the
# disk is full or fails; 1 a sentence for a person. Anything else is a fault: a rank was killed, a machine or a link
# went away. What one rank ended of counts for more than how that ended the others.
on_ranks --output="${stay//%/%%}/rank-%4t.log" bash -c train
code=$?
if ((code != 0)); then
  codes=$(sort --numeric-sort --unique "$stay"/exit-* 2> /dev/null)
  say "The ranks ended with exit codes ${codes//$'\n'/, } and the worst was $code."
  grep --quiet --line-regexp 1 <<< "$codes" && give_up "a rank asks for you; read the logs in $stay"
  grep --quiet --line-regexp 74 <<< "$codes" && fault "the disk is full or fails"
  ((code == 75)) && come_back "it was told to stop, and saved"
  fault "a rank ended with exit code $code"
fi
@cleaning@
# The report card.
if minigpt evaluate "$run" && minigpt report "$run"; then
  say "The run is finished; its report card is $run/report.md"
else
  say "The run is trained but has no report card; call minigpt evaluate and minigpt report once more."
fi
