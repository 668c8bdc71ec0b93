"""docs/merlot_reserve.md: its Python runs, on a published file of a tiny size and a video with sound."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from mmpt.utils.files import REPOSITORY
from mmpt.utils.subword_training import train_subwords
from mmpt.utils.weight_files import load_state_dict_file
from tests.models.published_reserve import FLAX_FILE
from tests.store.sound_samples import write_sound_video

PAGE = (REPOSITORY / "docs/merlot_reserve.md").read_text(encoding="utf-8")


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    train_subwords("reserve", ["in this video i'll be cooking"] * 3, 370, "pretrained_models/reserve")
    shutil.copy(FLAX_FILE, "pretrained_models/reserve/base_resadapt")
    Path("my_videos").mkdir()
    write_sound_video(Path("my_videos/cooking.mp4"), 13)
    use, conversion = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, torch.Tensor] = {}
    exec(conversion, names)
    assert len(load_state_dict_file("pretrained_models/reserve/base_resadapt.safetensors")) > 129
    exec(use, names)
    assert names["probabilities"].shape == (1, 3) and names["probabilities"].sum().item() == pytest.approx(1)
    assert names["video"]["audio_clips"] is not None and len(names["segments"]) == 2
