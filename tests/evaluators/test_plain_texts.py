"""Texts of users are drawn as they stand, never as formulas."""

import numpy as np
import pytest

from mmpt.evaluators import figure_style
from mmpt.evaluators.figure_style import to_bytes
from mmpt.evaluators.heat_maps import mask_picture, named_heatmap
from mmpt.evaluators.score_timelines import score_timeline
from mmpt.evaluators.token_pictures import masking_picture

Text = pytest.importorskip("matplotlib.text").Text
NASTY = [r"$\frac{$", "cost $5% or $6", r"\$5$ $", "$x^2$", "a $ b", r"$\x$ $\y$"]


def _timeline(labels):
    starts = np.arange(len(labels), dtype=float)
    spans = [(start, start + 1, label) for start, label in zip(starts, labels, strict=True)]
    return score_timeline(np.eye(len(labels)), labels, starts, starts + 1, spans, title=labels[0])


FIGURES = {
    "lines": lambda texts: _timeline(texts[:5]),
    "rows": _timeline,
    "heat map": lambda texts: named_heatmap(np.eye(len(texts)), texts, texts, title=texts[0], label=texts[1]),
    "mask": lambda texts: mask_picture(np.eye(len(texts)), [(text, 1) for text in texts], title=texts[0]),
    "masking": lambda texts: masking_picture([(texts[0], texts, np.zeros(len(texts), bool))]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_a_formula(name):
    figure = FIGURES[name](NASTY)
    assert to_bytes(figure, "png", 40).startswith(b"\x89PNG")
    texts = figure.findobj(match=Text)
    assert all(text.get_parse_math() is False for text in texts if text.get_text())


def test_pictures_show_every_sign():
    def drawn(label):
        figure = figure_style.blank_figure(3, 1)
        figure.text(0, 0.5, label)
        return to_bytes(figure, "png", 40)

    assert drawn("$x$") != drawn("x")
    assert drawn("a $5 b $6") != drawn("a 5b 6")


def test_a_timeline_of_many_labels_is_no_taller_than_of_sixty():
    labels = [f"label {number}" for number in range(500)]
    scores = np.zeros((2, 500))
    scores[0, 480:], scores[1, 499] = 0.5, 0.9
    figure = score_timeline(scores, labels, np.arange(2.0), np.arange(1.0, 3), [(0, 1, "label 77")])
    shown = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(shown) == 60 and {"label 77", "label 499", "label 480"} <= set(shown)
    assert figure.get_figheight() < 20 and "60 of 500" in figure.axes[0].get_xlabel()
    assert to_bytes(figure, "png", 20)
