"""What a report shows of retrieval tests: distributions of ranks, scores, example retrievals.

Read are the files of the tests (:mod:`mmpt.evaluators.retrieval_files`); video files only for the pictures of the
examples.
"""

import functools
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators import page
from mmpt.evaluators.figures import Example, rank_histogram, retrieval_gallery
from mmpt.evaluators.gallery import Thumbnails, choose_queries, examples_of
from mmpt.evaluators.heat_maps import similarity_heatmap
from mmpt.evaluators.ranking import ranks, ranks_from_scores
from mmpt.evaluators.results import Result
from mmpt.evaluators.retrieval_files import read_scored, scores_of

__all__ = ["RetrievalView", "read_retrieval", "retrieval_figures", "retrieval_sections"]

_MOST_QUERIES = 5000
_HEATMAP_SIDE = 120
_FRAMED = "Frames run left to right, top to bottom; the right video is framed"
_MARKED = "The right video has a ✓"


@dataclass
class RetrievalView:
    """What the page shows of one retrieval test beyond its metrics."""

    name: str
    ranks: npt.NDArray[np.int64]
    candidates: int
    scores: npt.NDArray[np.float32]
    good: list[Example]
    bad: list[Example]


def read_retrieval(result: Result, thumbnails: Thumbnails | None) -> RetrievalView:
    """Read what a report shows of a retrieval test.

    Raises:
        DataError: if its embeddings or scores are missing or damaged; names the file.
    """
    arrays = read_scored(result.run_dir)
    if len(arrays["target"]) > _MOST_QUERIES:  # the page needs shapes of distributions, not every query
        kept = np.linspace(0, len(arrays["target"]) - 1, _MOST_QUERIES).astype(int)
        by_text = [name for name in ("text", "outputs", "target", "texts") if name in arrays]
        arrays.update({name: arrays[name][kept] for name in by_text})
    if "outputs" in arrays:
        found = ranks_from_scores(arrays["outputs"], arrays["target"])
    else:
        found = ranks(arrays["text"], arrays["video"], arrays["target"])
    good, bad = choose_queries(found)
    _, described = np.unique(arrays["target"], return_index=True)
    rows = described[np.linspace(0, len(described) - 1, min(_HEATMAP_SIDE, len(described))).astype(int)]
    rows = rows[np.argsort(arrays["texts"][rows], kind="stable")]  # texts that begin alike become neighbours
    scores = scores_of(arrays, rows)[:, arrays["target"][rows]]
    examples = (examples_of(arrays, found, chosen, thumbnails=thumbnails) for chosen in (good, bad))
    return RetrievalView(result.name, found, len(arrays["ids"]), scores, *examples)


def retrieval_figures(views: Sequence[RetrievalView], pictures: bool = True) -> dict[str, Any]:
    """Return the figures of some tests for documents, by name; example retrievals only where there are pictures."""
    drawn: dict[str, Any] = {}
    for candidates, group in _by_candidates(views).items():
        drawn[f"ranks_{candidates}"] = rank_histogram({view.name: view.ranks for view in group}, candidates)
    for view in views:
        stem = view.name.replace("/", "_")
        drawn[f"similarity_{stem}"] = similarity_heatmap(view.scores, title=view.name)
        if pictures and (view.good or view.bad):
            drawn[f"retrievals_{stem}"] = retrieval_gallery([*view.good, *view.bad], title=view.name)
    return drawn


def retrieval_sections(views: Sequence[RetrievalView], pictures: bool = True) -> list[str]:
    """Return the HTML sections of some tests; ``pictures`` says whether there are frames of the videos."""
    return [_distributions(views), _examples(views, pictures)] if views else []


def _by_candidates(views: Sequence[RetrievalView]) -> dict[int, list[RetrievalView]]:
    groups: dict[int, list[RetrievalView]] = {}
    for view in views:
        groups.setdefault(view.candidates, []).append(view)
    return groups


def _distributions(views: Sequence[RetrievalView]) -> str:
    charts = []
    for candidates, group in _by_candidates(views).items():
        draw = functools.partial(rank_histogram, {view.name: view.ranks for view in group}, candidates)
        charts.append(page.chart(draw, f"histogram of ranks among {candidates} videos"))
    maps = []
    for view in views:
        draw = functools.partial(similarity_heatmap, view.scores, title=view.name)
        maps.append(page.chart(draw, f"scores of {view.name}"))
    note = f"Where the right video lands, and the scores behind it (up to {_HEATMAP_SIDE} texts and their videos)."
    return page.section("Ranks and similarities", note, *charts, f"<div class=pair>{''.join(maps)}</div>")


def _examples(views: Sequence[RetrievalView], pictures: bool) -> str:
    parts = []
    for view in views:
        for heading, examples in (("found first", view.good), ("missed", view.bad)):
            if examples:
                parts.append(f"<h3>{html.escape(view.name)}: {heading}</h3>")
                parts.extend(page.example_card(example) for example in examples)
    note = (
        "Queries spread evenly over the test set, from those answered right and from the nearest miss to the worst "
        f"rank. {_FRAMED if pictures else _MARKED}, and set apart where it is not "
        "among the first five. Scores are dot products of text and video embedding, or what a model that fuses the two "
        "says of the pair."
    )
    return page.section("Example retrievals", note, *parts)
