#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, for as long as a command runs:
#
#   tests/slurm/cluster.sh COMMAND...
#
# Everything it writes is below a temporary folder; daemons listen on free ports of this host and
# are stopped however the command ends. Needs root, slurm-wlm and munge (workflow/system.sh PYTHON slurm).
# No accounting database: as on a cluster without one, only squeue and scontrol know the jobs.
set -euo pipefail

for program in munged slurmctld slurmd sbatch; do
    if ! command -v "$program" >/dev/null; then
        echo "skipped: no $program here; \`make test-slurm\` installs Slurm as root on Debian" >&2
        exit 0
    fi
done
if [ "$(id -u)" != 0 ]; then
    echo "skipped: slurmd needs root" >&2
    exit 0
fi

root=$(mktemp -d /tmp/slurm-XXXXXX) # short: a socket's path has at most 107 characters
daemons=()
command=""
set -m # each process in the background leads a group of its own
stop() {
    status=$?
    trap '' INT TERM
    [ -z "$command" ] || kill -TERM -- "-$command" 2>/dev/null || true
    if timeout 5 scancel --me --full --signal=KILL 2>/dev/null; then
        # Jobs outlive slurmd: wait for their end while there is somebody to end them.
        for _ in $(seq 40); do
            timeout 5 scancel --me 2>/dev/null || true
            [ -z "$(timeout 5 squeue --noheader 2>/dev/null)" ] && break
            sleep 0.5
        done
    fi
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        kill "${daemons[i]}" 2>/dev/null || true
    done
    wait || true
    case $status in 0 | 130 | 143) ;; *) tail -n 20 "$root"/*.log >&2 || true ;; esac
    rm -rf "$root"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

read -r ctld_port slurmd_port < <(python3 - <<'PY'
import socket
held = [socket.socket() for _ in range(2)]
for one in held:
    one.bind(("", 0))
print(*(one.getsockname()[1] for one in held))
PY
)
host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
mkdir -p "$root"/{bin,state,spool,munge}
chmod 711 "$root" "$root/munge"
(umask 077 && head -c 1024 /dev/urandom >"$root/munge/key")

# Two devices that are no GPUs: Slurm counts and hands them out all the same.
printf 'Name=gpu File=%s\n' /dev/null /dev/zero >"$root/gres.conf"
cat >"$root/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$slurmd_port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$root/munge/socket
CredType=cred/munge
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool
SlurmctldPidFile=$root/slurmctld.pid
SlurmdPidFile=$root/slurmd.pid
SlurmctldLogFile=$root/slurmctld.log
SlurmdLogFile=$root/slurmd.log
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SwitchType=switch/none
MpiDefault=none
TaskPlugin=task/none
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=1
ReturnToService=2
MinJobAge=3600
OverTimeLimit=0
KillWait=5
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=${SLURM_TEST_CPUS:-2} RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=short Nodes=$host MaxTime=60 State=UP
PartitionName=study Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$root/slurm.conf

# Snakemake's job step calls srun without any SLURM_ variable; a cluster has its file in /etc/slurm.
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$root/bin/srun"
chmod +x "$root/bin/srun"
export PATH=$root/bin:$PATH

munged --foreground --force --key-file="$root/munge/key" --socket="$root/munge/socket" \
    --pid-file="$root/munge/pid" --seed-file="$root/munge/seed" --num-threads=1 \
    >"$root/munged.log" 2>&1 &
daemons+=($!)
until [ -S "$root/munge/socket" ] || ! kill -0 "${daemons[0]}" 2>/dev/null; do sleep 0.1; done
slurmctld -D >"$root/ctld-start.log" 2>&1 &
daemons+=($!)
slurmd -D -N "$host" >"$root/slurmd-start.log" 2>&1 &
daemons+=($!)

for _ in $(seq 100); do
    state=$(timeout 2 sinfo -h -N -o %T -p study 2>/dev/null || true)
    [ "$state" = idle ] && break
    kill -0 "${daemons[@]}" 2>/dev/null || break
    sleep 0.2
done
if [ "$state" != idle ]; then
    echo "error: the test cluster did not come up (state: ${state:-none})" >&2
    exit 1
fi

HYBRIDLUNGVIT_TEST_SLURM=1 "$@" &
command=$!
wait "$command"
