"""What is attended to, against the maps of every layer added up by hand."""

import numpy as np
import pytest
import torch

from mmpt.api import VideoTextPipeline
from mmpt.api.attention import attention_of
from mmpt.utils.errors import MMPTError
from tests.api.tiny_models import write_model, write_video

pytest.importorskip("av")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    write_video(folder / "a.mp4", 3.0, sound=False)
    return folder


@pytest.mark.parametrize("name", ["VIOLETRetrieval", "LAVENDER"])
def test_patches_and_words_get_what_the_maps_of_all_layers_give_them(folder, name):
    pipeline = VideoTextPipeline.from_pretrained(write_model(folder, name), device="cpu")
    seen, model = attention_of(pipeline, folder / "a.mp4", "w3 w4 w5"), pipeline.model
    vfeats, vmasks = pipeline.video_inputs(folder / "a.mp4")
    tokens = pipeline.comparer.texts(["w3 w4 w5"])
    with torch.no_grad():
        video = model.encode_video(vfeats, vmasks)
        text = model.encode_text(tokens.caps, tokens.cmasks, **tokens.pretext)
        maps = model.fuse(video, text, need_attention=True).attentions
    received = sum(layer[0].mean(0).sum(0) for layer in maps).numpy()
    count, rows, columns = seen.patches.shape
    assert seen.frames.shape == (count, *vfeats.shape[-2:], 3) and count == int(vmasks.sum())
    per_frame = 1 + rows * columns
    for number in range(count):
        of_frame = received[number * per_frame + 1 : (number + 1) * per_frame].reshape(rows, columns)
        np.testing.assert_allclose(seen.patches[number], of_frame, rtol=1e-4)
    assert seen.words[:5] == ["[CLS]", "w3", "w4", "w5", "[SEP]"]
    first = len(received) - tokens.caps.shape[1]
    np.testing.assert_allclose(seen.weights[:5], received[first : first + 5], rtol=1e-4)


def test_other_models_have_none(folder):
    pipeline = VideoTextPipeline.from_pretrained(write_model(folder, "MERLOTPretraining"), device="cpu")
    with pytest.raises(MMPTError, match="VIOLET and LAVENDER have"):
        attention_of(pipeline, folder / "a.mp4", "w3")
