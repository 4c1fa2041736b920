# Pieces of job scripts that stand in some of them only. Each begins with a line `# == NAME`.
# == gpus
# GPUs of each machine. All of them are visible to all its ranks, which then pass tensors directly from one to another;
# a rank takes the one of its own number.
#SBATCH --gpus-per-node=@kind@@n@
# == cpu
# == cpu_place
# == nvidia
# NCCL carries tensors between GPUs; its warnings go to the ranks' logs. If the machines have several networks, name
# the fast one here: export NCCL_SOCKET_IFNAME=...
export NCCL_DEBUG=WARN
# == nvidia_place
# == amd
# RCCL carries tensors between GPUs and listens to NCCL's variables; its warnings go to the ranks' logs. If the
# machines have several networks, name the fast one here: export NCCL_SOCKET_IFNAME=...
export NCCL_DEBUG=WARN
# == amd_place
  # Slurm lists the GPUs in ROCR_VISIBLE_DEVICES. ROCm would take a second list as numbers within the first.
  [[ -z ${ROCR_VISIBLE_DEVICES:-} ]] || unset CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES
# == stage
# Where this machine's own disk takes a copy of the shards.
own_disk() { echo @local@/"minigpt-$SLURM_JOB_ID-$SLURMD_NODENAME"; }

# Copy the shards and compare their hashes. Where there is no room, a sentence says so. Exit code 1: the shared shards
# themselves are damaged.
stage() { exec python -m minigpt.cluster.stage "$run/shards" "$(own_disk)"; }

unstage() { rm -rf "$(own_disk)"; }

# == shards
  local shards
  shards=$(own_disk)
  [[ -e $shards/shards.json ]] || shards=$run/shards
# == staging

# The shards onto each machine's own disk.
on_ranks --ntasks="$SLURM_NNODES" --ntasks-per-node=1 bash -c stage
code=$?
((code == 1)) && give_up "the shards are damaged"
((code == 0)) || not_begun "copying the shards"
# == cleaning

# The copies of the shards have served. A stay that ends otherwise leaves them to the next one.
on_ranks --ntasks="$SLURM_NNODES" --ntasks-per-node=1 bash -c unstage
# == end
