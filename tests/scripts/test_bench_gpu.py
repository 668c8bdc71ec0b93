"""The benchmark on a GPU: what it can be asked without one."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from scripts.benchmarks import bench_gpu
from scripts.benchmarks.bench_gpu import attention_kernels, kernel_shares, peak_of


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", None),  # another chip's rate is worse than none
        ("Tesla T4", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ],
)
def test_peak_rates_are_looked_up_by_whole_words(name, peak):
    assert peak_of(name) == peak


def test_kinds_of_attention_are_told_by_their_kernels():
    names = [
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>>",
        "fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention)",
        "ampere_bf16_s16816gemm_bf16_128x64",
    ]
    assert attention_kernels(names) == ["flash", "memory-efficient"]
    assert attention_kernels(names[2:]) == []


def test_shares_are_of_kernels_not_of_the_operators_that_launched_them():
    def event(key, device, on_device, named=False):
        times = {"self_device_time_total": on_device, "self_cpu_time_total": 5.0}
        return SimpleNamespace(key=key, device_type=device, is_user_annotation=named, **times)

    events = [
        event("aten::mm", DeviceType.CPU, 30.0),  # its kernel's time again
        event("gemm", DeviceType.CUDA, 30.0),
        event("aten::add", DeviceType.CPU, 10.0),
        event("add_kernel", DeviceType.CUDA, 10.0),
        event("Optimizer.step#AdamW.step", DeviceType.CUDA, 10.0, named=True),  # a range over it
    ]
    assert kernel_shares(events, cuda=True) == {"gemm": 0.75, "add_kernel": 0.25}
    assert kernel_shares(events[:2], cuda=False) == {"aten::mm": 0.5, "gemm": 0.5}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert bench_gpu.main([]) == 2
    assert "no GPU is available" in capsys.readouterr().err


def test_a_tiny_run_on_the_cpu(tmp_path, capsys):
    arguments = ["--device", "cpu", "--tiny", "--no-extraction", "--peak-tflops", "1", "--systems", "videoclip"]
    assert bench_gpu.main([*arguments, "--json", str(tmp_path / "f.json")]) == 0
    found = json.loads((tmp_path / "f.json").read_text())
    for row in found["systems"].values():
        assert row["tflop"] > 0
        assert row["utilisation"] == pytest.approx(row["tflop"] / row["seconds"])
        assert 0 < sum(row["kernels"].values()) <= 1 + 1e-6
    assert "1 TFLOP/s of dense bf16" in capsys.readouterr().out
