"""What is attended to, against the maps of every layer added up by hand."""

import numpy as np
import pytest
import torch

from mmpt.api import VideoTextPipeline
from mmpt.api.attention import attention_of
from mmpt.utils import special_ids
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


@pytest.mark.parametrize("name", ["MERLOTPretraining", "MERLOTOpenEnded"])
def test_merlot_shows_the_pooled_places_of_each_frame_and_subwords(folder, name):
    """Frames of two rows of three places: a mistaken order, or a summary that is taken for a place, would show."""
    run = write_model(folder, name, {"image_size": [64, 96]})
    pipeline = VideoTextPipeline.from_pretrained(run, device="cpu")
    seen, model = attention_of(pipeline, folder / "a.mp4", "a red star"), pipeline.model
    ids = [special_ids.MERLOT["START"], *pipeline.tokenizer.encode(" a red star")]
    ids += [special_ids.MERLOT["END"]] * (name == "MERLOTOpenEnded")
    tokens, vfeats = torch.tensor([ids]), torch.from_numpy(seen.frames).permute(0, 3, 1, 2)[None]
    count = vfeats.shape[1]
    with torch.no_grad():
        images = model.embed_images(model.encode_images(vfeats), torch.arange(count)[None]).flatten(1, 2)
        words = model.embed_text(tokens, torch.ones_like(tokens)).values  # without padding, which nothing attends to
        joint = torch.cat([images, words], 1)
        maps = model.encoder(joint, torch.ones(joint.shape[:2]).bool(), need_attention=True).attentions
    received = sum(layer[0].mean(0).sum(0) for layer in maps).numpy()
    assert seen.frames.shape == (count, 64, 96, 3) and seen.patches.shape == (count, 2, 3) and count == 4
    places = received[: count * 7].reshape(count, 7)
    np.testing.assert_allclose(seen.patches.reshape(count, 6), places[:, 1:], rtol=1e-4)
    assert seen.words[0] == "<|START|>" and "".join(seen.words[1:]).removesuffix("<|END|>") == "aredstar"
    np.testing.assert_allclose(seen.weights, received[count * 7 :], rtol=1e-4)


def test_other_models_have_none(folder):
    pipeline = VideoTextPipeline.from_pretrained(write_model(folder, "MMFusionSeparate"), device="cpu")
    with pytest.raises(MMPTError, match="VIOLET, LAVENDER and MERLOT have"):
        attention_of(pipeline, folder / "a.mp4", "w3")
