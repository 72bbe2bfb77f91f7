"""The table that says where trainings run, checked so that nothing in it can change what a job does."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fsseg.recipe.components import Table

SLURM_OPTIONS = {
    "begin", "clusters", "comment", "constraint", "contiguous", "core-spec", "cores-per-socket", "cpu-freq",
    "cpus-per-gpu", "deadline", "dependency", "exclude", "exclusive", "extra-node-info", "gpu-freq", "gpus",
    "gpus-per-task", "gres", "hint", "licenses", "mail-type", "mail-user", "mem-per-cpu", "mem-per-gpu", "mincpus",
    "nice", "nodelist", "power", "prefer", "priority", "reservation", "sockets-per-node", "spread-job", "switches",
    "threads-per-core", "time-min", "tmp", "use-min-nodes", "wckey",
}  # fmt: skip
"""What `launcher.extra` may say to sbatch: where and when a job runs, nothing that names files, variables or commands."""


def _check_slurm_word(value: str) -> str:
    """It will stand in the script that sbatch reads: with a line break in it, a recipe could add commands of its own."""
    if not re.fullmatch(r"[\w.,:;=@%+*&|()\[\]/-]+", value, flags=re.ASCII):
        raise ValueError(
            "a word of letters, digits and .,:;=@%+*&|()[]/-_ without spaces or line breaks"
        )
    return value


def _check_slurm_options(options: dict[str, Any]) -> dict[str, Any]:
    if not SLURM_OPTIONS.issuperset(key.replace("_", "-") for key in options):
        raise ValueError(f"of sbatch's options only {', '.join(sorted(SLURM_OPTIONS))}")
    return options


SlurmWord = Annotated[str, AfterValidator(_check_slurm_word)]


class LauncherTable(Table):
    """Where the trainings of several folds and seeds run. No result depends on it."""

    name: Literal["local", "slurm"] = Field(
        default="local", description="processes of this machine, or jobs of a Slurm cluster"
    )
    jobs: int | None = Field(
        default=None,
        ge=1,
        description="local: jobs at a time; one after the other in this process when omitted",
    )
    time: int = Field(
        default=1440,
        ge=1,
        description="slurm: minutes of a job; one that needs more is queued again and goes on",
    )
    gpus: int = Field(default=1, ge=0, description="slurm: GPUs of a job")
    cpus: int = Field(
        default=4,
        ge=1,
        description="slurm: processors of a job, and its threads where speed.threads is auto",
    )
    memory: str = Field(
        default="16G", pattern=r"^\d+[KMGT]?$", description="slurm: memory of a job"
    )
    parallelism: int = Field(default=256, ge=1, description="slurm: jobs at a time")
    partition: SlurmWord | None = Field(
        default=None, description="slurm: the partition; the cluster's own when omitted"
    )
    account: SlurmWord | None = Field(default=None, description="slurm: the account that pays")
    qos: SlurmWord | None = Field(default=None, description="slurm: the quality of service")
    extra: Annotated[dict[str, bool | int | SlurmWord], AfterValidator(_check_slurm_options)] = (
        Field(
            default={},
            description='slurm: other options of sbatch about where and when a job runs, such as exclude = "node7"',
        )
    )
