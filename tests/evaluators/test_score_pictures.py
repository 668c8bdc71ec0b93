"""Score timelines, named similarities and mask pictures: what is drawn is what was given."""

import numpy as np
import pytest
import torch

from mmpt.evaluators.figure_style import DARK, LIGHT, ink_on, save_figure
from mmpt.evaluators.heat_maps import mask_picture, named_heatmap
from mmpt.evaluators.score_timelines import score_timeline
from mmpt.evaluators.token_pictures import attention_picture, masking_picture
from mmpt.modules.attention_masks import isolated_mask
from mmpt.utils.errors import ConfigError, DataError

pytest.importorskip("matplotlib")


def timeline(labels, **more):
    scores = np.arange(4 * len(labels), dtype=np.float32).reshape(4, -1)
    return score_timeline(scores, labels, np.arange(4.0), np.arange(4.0) + 2, **more)


def test_few_labels_are_lines_at_the_middles_of_their_parts():
    axes, spans = timeline(["pour", "stir"], spans=[(0, 2, "pour"), (2, 5, "stir")]).axes
    assert [line.get_label() for line in axes.get_lines()] == ["pour", "stir"]
    assert axes.get_lines()[1].get_xydata().tolist() == [[1, 1], [2, 3], [3, 5], [4, 7]]
    assert [text.get_text() for text in spans.texts] == ["pour", "stir"]
    colours = [line.get_color() for line in axes.get_lines()]
    assert [tuple(bar.get_facecolor()[0]) for bar in spans.collections] == [to_rgba(colour) for colour in colours]


def to_rgba(colour):
    from matplotlib.colors import to_rgba

    return to_rgba(colour)


def test_many_labels_are_rows():
    figure = timeline([f"label {number}" for number in range(9)], theme=DARK)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()][:2] == ["label 0", "label 1"]
    assert figure.axes[0].collections[0].get_array().shape == (9, 4)


def test_spans_of_many_labels_are_frames_in_their_rows():
    spans = [(0, 2, "label 8"), (2, 5, "label 3")]
    figure = timeline([f"label {number}" for number in range(9)], spans=spans)
    frames = [bar.get_paths()[0].get_extents() for bar in figure.axes[0].collections[1:]]
    assert [(*frame.min, *frame.max) for frame in frames] == [(0, 7.5, 2, 8.5), (2, 2.5, 5, 3.5)]


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(DataError, match="1 labels"):
        score_timeline(np.zeros((3, 2)), ["a"], np.arange(3), np.arange(3))
    with pytest.raises(DataError, match="2 row"):
        named_heatmap(np.zeros((3, 2)), ["a", "b"], ["c", "d"])
    with pytest.raises(DataError, match="3 positions"):
        mask_picture(np.zeros((4, 4), bool), [("video", 3)])


def test_cells_have_their_numbers():
    axes = named_heatmap(np.array([[0.0, 0.25], [0.5, 1.0]]), ["t1", "t2"], ["v1", "v2"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.00", "0.25", "0.50", "1.00"]
    assert [text.get_color() for text in axes.texts][::3] == [ink_on("#f7f9fb"), ink_on("#1b2a54")]
    assert not named_heatmap(np.zeros((2, 13)), ["a", "b"], list("abcdefghijklm")).axes[0].texts


def test_the_mask_of_vlm_is_drawn_as_it_is():
    mask = isolated_mask(torch.ones(1, 3), torch.ones(1, 4))[0].numpy()
    axes = mask_picture(mask, [("[CLS]", 1), ("video", 4), ("text", 2)]).axes[0]
    assert (np.asarray(axes.images[0].get_array()) == mask).all()
    assert [tick.get_position()[0] for tick in axes.get_xticklabels()] == [0, 2.5, 5.5]


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
def test_files(tmp_path, name, start):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_figure(timeline(["x"]), tmp_path / folder / name, LIGHT)
    assert (tmp_path / "one" / name).read_bytes().startswith(start)
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.png"):
        save_figure(timeline(["x"]), tmp_path / "a.txt")


def boxes(axes):
    """Return (word, line, colour) of the words that are drawn."""
    bars = axes.patches
    return [
        (text.get_text(), text.get_position()[1], bar.get_facecolor())
        for text, bar in zip(axes.texts, bars, strict=True)
    ]


def test_masked_words_are_filled_and_long_texts_wrap():
    words = [f"word{number}" for number in range(40)]
    masked = np.arange(40) % 7 == 0
    (axes,) = masking_picture([("draw 1", words, masked)]).axes
    drawn = boxes(axes)
    assert [word for word, _, _ in drawn] == words and axes.get_title(loc="left") == "draw 1"
    assert [colour == to_rgba(LIGHT.series[1]) for _, _, colour in drawn] == masked.tolist()
    lines = [line for _, line, _ in drawn]
    assert lines == sorted(lines) and lines[-1] >= 2
    with pytest.raises(DataError, match="differ in number"):
        masking_picture([("draw 1", words, masked[1:])])


def test_attention_lies_on_the_patches_that_it_is_of():
    frames = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), np.uint8)
    patches = np.arange(12.0).reshape(2, 2, 3)
    figure = attention_picture(frames, patches, ["a", "b"], np.array([0.0, 11.0]))
    shown = [axes.get_images() for axes in figure.axes if len(axes.get_images()) == 2]
    assert [np.asarray(heat.get_array()).tolist() for _, heat in shown] == patches.tolist()
    assert all(heat.get_extent() == frame.get_extent() for frame, heat in shown)
    weak, strong = (colour for _, _, colour in boxes(figure.axes[-1] if figure.axes[-1].texts else figure.axes[-2]))
    assert strong == pytest.approx(to_rgba(LIGHT.series[1])) and weak == pytest.approx(to_rgba(LIGHT.grid))
    with pytest.raises(DataError, match="3 words"):
        attention_picture(frames, patches, ["a", "b", "c"], np.zeros(2))
