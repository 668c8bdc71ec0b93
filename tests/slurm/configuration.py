"""The slurm.conf of the cluster of these tests."""

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_configuration"]

_GPUS = 4
# cred_expire is also how long a requeued job waits. A node that is silent for SlurmdTimeout is down, and its jobs are
# requeued. GraceTime is what a preempted job has for saving. The nodes claim more than this host has, and GPUs.
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MinJobAge=86400
KillWait=2
SlurmdTimeout=6
SlurmctldTimeout=10
BatchStartTimeout=20
MessageTimeout=20
InactiveLimit=0
ReturnToService=2
GresTypes=gpu
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=120 OverSubscribe=YES State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF OverSubscribe=YES State=UP
"""
_NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=65536 Gres=gpu:4"


def write_configuration(folder: Path, nodes: Sequence[str]) -> Path:
    """Write slurm.conf and gres.conf for a cluster that keeps its files in ``folder``; return the former's path.

    Jobs of the partition `low` are preempted, and requeued, by those of the partition `high`.
    """
    host = socket.gethostname().partition(".")[0]
    controller, *ports = _free_ports(len(nodes) + 1)
    lines = [_NODE.format(name=name, host=host, port=port) for name, port in zip(nodes, ports, strict=True)]
    for number in range(_GPUS):
        (folder / f"gpu{number}").touch()  # Slurm wants a file for each GPU, and takes any
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{_GPUS - 1}]\n")
    path = folder / "slurm.conf"
    user = Path("/proc/self").owner()
    path.write_text(_CONF.format(host=host, ctld_port=controller, user=user, folder=folder, nodes="\n".join(lines)))
    return path


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
