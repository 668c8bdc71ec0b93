"""The exact commands of jobs."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmpt.launch.commands import build_command, printable
from mmpt.launch.layout import Layout, Machine, job_type_of, local_layout
from mmpt.launch.project import Job, expand_project
from mmpt.utils.errors import ConfigError
from mmpt_cli.fairseq_worker import place_flags

GPUS = Machine(gpus=8)
LAPTOP = Machine(gpus=0, cores=4)


def shipped(project: str, name: str) -> Job:
    return next(job for job in expand_project(f"projects/{project}.yaml").jobs if job.name == name)


def line(job: Job, asked: str | None, machine: Machine = GPUS) -> str:
    layout = local_layout(job_type_of(job, asked), machine, typed=True)
    argv = build_command(job, job.path, layout, machine).argv
    return printable([Path(argv[0]).name, *argv[1:]])


def test_published_pretraining_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shipped("retri/videoclip", "how2.yaml")
    job.run_dir = Path("runs/retri/videoclip")
    assert line(job, "local_big") == (
        "torchrun --standalone --nproc-per-node 8 mmpt_cli/fairseq_worker.py"
        " projects/retri/videoclip/how2.yaml --user-dir mmpt --task mmtask --arch mmarch"
        " --criterion mmloss --tensorboard-logdir runs/retri/videoclip/run_0"
        " --log-interval 1000 --fp16 --num-workers 4 --batch-size 1 --lr 5e-05 --clip-norm 2.0 --optimizer adam"
        " --adam-betas '(0.9, 0.98)' --lr-scheduler polynomial_decay --total-num-update 1000000 --warmup-updates 1000"
        " --weight-decay 0.0 --ddp-backend no_c10d --max-epoch 25 --save-dir runs/retri/videoclip"
        " --save-interval-updates 1024 --keep-interval-updates 2 --keep-last-epochs 30"
    )


def test_published_finetuning_and_test_commands() -> None:
    tune = line(shipped("retri/videoclip", "youcook_videoclip.yaml"), "local_small")
    assert "--nproc-per-node 2 " in tune
    assert "--batch-size 128 " in tune
    assert (
        "--restore-file runs/retri/videoclip/checkpoint_best.pt --reset-optimizer --reset-dataloader --reset-meters"
        " --save-dir runs/retri/videoclip/youcook"
    ) in tune
    test = line(shipped("retri/videoclip", "test_youcook_zs.yaml"), "local_big")
    assert test.split()[1:] == ["mmpt_cli/predict.py", "projects/retri/videoclip/test_youcook_zs.yaml"]


def test_one_worker_does_not_take_the_other_gpus() -> None:
    job = shipped("retri/videoclip", "how2.yaml")
    assert "fairseq-train " in line(job, "local_single")
    assert "--distributed-world-size 1 " in line(job, "local_single"), "fairseq alone takes all that it sees"
    assert "--distributed-world-size" not in line(job, "local_single", LAPTOP)
    argv = build_command(job, job.path, Layout(1, started=True), Machine(gpus=1)).argv
    assert argv[argv.index("--distributed-world-size") + 1] == "1"


def test_vlm_batch_is_divided_into_items() -> None:
    assert "--batch-size 8 " in line(shipped("mtm/vlm", "how2.yaml"), "local_big")


def test_on_a_laptop_as_many_cpu_workers_as_cores_in_fp32_and_it_says_so() -> None:
    job = shipped("retri/videoclip", "how2.yaml")
    command = build_command(job, job.path, local_layout("local_big", LAPTOP), LAPTOP)
    assert Path(command.argv[0]).name == "torchrun"
    assert command.argv[1:5] == ["--standalone", "--nproc-per-node", "4", "mmpt_cli/fairseq_worker.py"]
    assert "--cpu" in command.argv
    assert not {"--fp16", "--distributed-world-size"} & set(command.argv)
    assert any("fp16" in note for note in command.notes)
    assert any("8 workers" in note for note in command.notes)


def test_workers_that_are_asked_for_by_name_are_started_whatever_the_cores() -> None:
    assert local_layout("local_big", LAPTOP, typed=True) == Layout(8)
    assert local_layout("local_single", LAPTOP, asked=6) == Layout(6)
    assert local_layout("local_big", Machine(gpus=4), typed=True).workers == 4, "one on each GPU"
    with pytest.raises(ConfigError, match="--gpus-per-node 5: this machine has 4 GPU"):
        local_layout("local_big", Machine(gpus=4), asked=5)


def test_a_worker_of_a_cluster_is_one_of_the_world_that_its_environment_tells_of() -> None:
    job = shipped("retri/videoclip", "how2.yaml")
    argv = build_command(job, job.path, Layout(16, nodes=2, started=True), GPUS).argv
    assert argv[1:3] == ["mmpt_cli/fairseq_worker.py", "projects/retri/videoclip/how2.yaml"]
    assert "--distributed-world-size" not in argv
    environment = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "1"}
    flags = place_flags(environment, [*argv, "--cpu"])
    assert flags[:4] == ["--distributed-world-size", "16", "--distributed-rank", "9"]
    assert flags[-4:] == ["--distributed-backend", "gloo", "--device-id", "0"]
    with_ddp = place_flags(environment, ["--cpu", "--ddp-backend", "pytorch_ddp"])
    assert with_ddp[-2:] == ["--ddp-backend", "legacy_ddp"], "torch's own wants a device"


def test_a_test_on_several_workers_goes_through_torchrun() -> None:
    job = shipped("retri/videoclip", "test_vtt_zs.yaml")
    argv = build_command(job, job.path, Layout(2), LAPTOP).argv
    assert Path(argv[0]).name == "torchrun"
    assert argv[3:5] == ["2", "mmpt_cli/predict.py"]


def test_false_flags_are_left_out_and_true_ones_are_bare() -> None:
    job = shipped("retri/videoclip", "youcook_videoclip.yaml")
    job.config.fairseq.common.fp16 = False
    job.config.fairseq.checkpoint.reset_meters = False
    argv = build_command(job, job.path, Layout(), GPUS).argv
    assert not {"--fp16", "--reset-meters", "False", "True"} & set(argv)
    assert "--reset-optimizer" in argv


def test_interrupted_finetuning_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    job = shipped("retri/videoclip", "youcook_videoclip.yaml")
    job.run_dir = tmp_path
    assert "--restore-file" in build_command(job, job.path, Layout(), GPUS).argv
    (tmp_path / "checkpoint_last.pt").touch()
    argv = build_command(job, job.path, Layout(), GPUS).argv
    assert not {"--restore-file", "--reset-optimizer", "--reset-dataloader", "--reset-meters"} & set(argv)


def test_unknown_flags_and_job_types_name_the_nearest() -> None:
    job = shipped("retri/videoclip", "how2.yaml")
    job.config.fairseq.optimization.max_epok = 2
    with pytest.raises(ConfigError, match=r"fairseq\.optimization\.max_epok.*'max_epoch'"):
        build_command(job, job.path, Layout(), GPUS)
    with pytest.raises(ConfigError, match="'local_small'"):
        job_type_of(job, "local_smal")


@pytest.mark.parametrize(
    ("task_type", "expected"),
    [
        ("sweep_big", "local_big"),
        ("sweep_small", "local_small"),
        ("sweep", "local_big"),
        ("slurm_small", "slurm_small"),
        ("local_single", "local_single"),
        (None, "local_single"),
    ],
)
def test_public_task_types_mean_local_ones(task_type: str | None, expected: str) -> None:
    job = shipped("retri/videoclip", "how2.yaml")
    job.config.task_type = task_type
    assert job_type_of(job) == expected


def test_tensorboard_folders_are_numbered_past_strange_names(tmp_path: Path) -> None:
    job = shipped("retri/videoclip", "how2.yaml")
    job.run_dir = tmp_path
    for name in ("run_0", "run_7", "run_final", "run_"):
        (tmp_path / name).mkdir()
    argv = build_command(job, job.path, Layout(), GPUS).argv
    assert argv[argv.index("--tensorboard-logdir") + 1] == str(tmp_path / "run_8")


def test_script_arguments_are_flags() -> None:
    config = OmegaConf.create(
        {"script": "scripts/x.py", "args": {"positional": ["a b"], "out_dir": "d", "split": ["t=1", "v=2"],
                                            "force": True, "quiet": False, "seed": None, "n": 0}}
    )  # fmt: skip
    job = Job("x.yaml", Path("x.yaml"), config, "script", Path("runs/x"))
    argv = build_command(job, job.path, Layout(), LAPTOP).argv
    assert argv[1:] == [
        "scripts/x.py", "a b", "--out-dir", "d", "--split", "t=1", "--split", "v=2", "--force", "--n", "0",
    ]  # fmt: skip
    assert "'a b'" in printable(argv)
