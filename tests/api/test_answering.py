"""Answers and captions of a pipeline, against what the models themselves give for texts laid out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mmpt.api import VideoTextPipeline
from mmpt.api.question_videos import Pictures, segments_around, segments_of
from mmpt.api.video_sources import FileSource, source_of
from mmpt.modules.reserve_tokens import PAD
from mmpt.store.images import decode_image
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.tokenizers import special_ids
from tests.api.tiny_models import ANSWERS, readable, write_model, write_video

pytest.importorskip("av")

OPTIONS = ["w3", "w4 w5", "w6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("answering")
    write_video(folder / "a.mp4", 5.0, 0)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    """Load a model of a class, each once."""
    kept: dict[str, VideoTextPipeline] = {}

    def load(name: str) -> VideoTextPipeline:
        if name not in kept:
            kept[name] = VideoTextPipeline.from_pretrained(write_model(folder, name), device="cpu")
        return kept[name]

    return load


@pytest.fixture(scope="module")
def video(folder) -> Path:
    return folder / "a.mp4"


def scores_of(answers) -> dict[str, float]:
    return {answer.text: answer.score for answer in answers}


def laid_out(pipeline, texts, length):
    """``[CLS] w.. [SEP] pad``, by hand."""
    special = special_ids(pipeline.config.dataset.bert_name)
    caps = torch.full((len(texts), length), special.pad)
    for row, text in zip(caps, texts, strict=True):
        ids = pipeline.tokenizer(text, add_special_tokens=False)["input_ids"]
        row[: len(ids) + 2] = torch.tensor([special.cls, *ids, special.sep])
    return caps, caps != special.pad


@torch.inference_mode()
def test_violet_scores_question_and_option_as_one_text(loaded, video):
    pipeline = loaded("VIOLETMultipleChoice")
    caps, cmasks = laid_out(pipeline, [f"w1 w2 {option}" for option in OPTIONS], pipeline.aligner.max_text_len)
    expected = pipeline.model.option_scores(caps[None], cmasks[None], *pipeline.video_inputs(video))[0]
    found = pipeline.answer(video, "w1 w2", OPTIONS)
    assert scores_of(found) == pytest.approx(dict(zip(OPTIONS, expected.tolist(), strict=True)), abs=1e-5)
    chances = expected.double().softmax(0)
    assert [answer.probability for answer in found] == pytest.approx(sorted(chances.tolist(), reverse=True), abs=1e-5)


@torch.inference_mode()
def test_violet_answers_with_the_words_of_its_vocabulary(loaded, video):
    pipeline = loaded("VIOLETOpenEnded")
    caps, cmasks = laid_out(pipeline, ["w1 w2"], pipeline.aligner.max_text_len)
    expected = pipeline.model.answer_scores(caps, cmasks, *pipeline.video_inputs(video))[0]
    found = pipeline.answer(video, "w1 w2", top=9)
    assert scores_of(found) == pytest.approx(dict(zip(ANSWERS, expected.tolist(), strict=True)), abs=1e-5)
    assert sum(answer.probability for answer in found) == pytest.approx(1)
    few = pipeline.answer(video, "w1 w2", answers=["w5", "w1"])
    assert scores_of(few) == pytest.approx({text: scores_of(found)[text] for text in ("w1", "w5")}, abs=1e-5)
    assert sum(answer.probability for answer in few) == pytest.approx(1)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["MMFusionSeparate", "MERLOTPretraining", "ReservePretraining", "VIOLETRetrieval"])
def test_models_that_compare_choose_by_the_joined_text(loaded, video, name):
    pipeline = loaded(name)
    (video,) = readable(pipeline, [video])
    found = scores_of(pipeline.answer(video, "w1 w2", OPTIONS))
    expected = pipeline.similarity([f"w1 w2 {option}" for option in OPTIONS], video)[:, 0]
    if name != "ReservePretraining":  # its tokenizer joins words over the seam
        assert found == pytest.approx(dict(zip(OPTIONS, expected.tolist(), strict=True)), abs=1e-5)
    plain = scores_of(pipeline.answer(video, "", OPTIONS))
    assert plain == pytest.approx(dict(zip(OPTIONS, pipeline.similarity(OPTIONS, video)[:, 0], strict=True)), abs=1e-5)


@pytest.mark.parametrize("name", ["MMFusionSeparate", "ReservePretraining", "VIOLETMultipleChoice", "MERLOTAnswering"])
def test_a_long_question_gives_way_to_its_options(loaded, video, name):
    pipeline = loaded(name)
    found = pipeline.answer(*readable(pipeline, [video]), "w1 w2 " * 200, OPTIONS)
    assert len({answer.score for answer in found}) == 3  # else the options were cut off, and all texts alike


@torch.inference_mode()
def test_lavender_fills_in_a_mask_and_answers_a_question(loaded, video):
    pipeline = loaded("LAVENDER")
    special, length = special_ids(pipeline.config.dataset.bert_name), pipeline.aligner.max_text_len
    found = pipeline.answer(video, "w1 [MASK] w2", top=3)
    caps, cmasks = laid_out(pipeline, ["w1 [MASK] w2"], length)
    place = caps[0].tolist().index(special.mask)
    expected = pipeline.model.answer_scores(
        caps, cmasks, *pipeline.video_inputs(video), answer_position=torch.tensor([place])
    )[0]
    for answer in found:
        number = pipeline.tokenizer.convert_tokens_to_ids(answer.text)
        assert answer.score == pytest.approx(float(expected[number]), abs=1e-4)
    allowed = pipeline.answer(video, "w1 w2", answers=["w4", "w5"])
    assert {answer.text for answer in allowed} == {"w4", "w5"}
    with pytest.raises(DataError, match="'w4 w5' is 2 word pieces"):
        pipeline.answer(video, "w1", answers=["w4 w5", "w3"])


def test_lavender_says_when_options_do_not_fit(loaded, video):
    with pytest.raises(DataError, match="10 options are too long.*max_text_len: 40"):
        loaded("LAVENDER").answer(video, "w1", [f"w{number} w1 w2" for number in range(10)])


@torch.inference_mode()
def test_merlot_scores_the_start_of_question_and_option(loaded, video):
    pipeline = loaded("MERLOTAnswering")
    source, size = source_of(video), pipeline.aligner.num_frames
    texts = [pipeline.tokenizer.encode(f" w1 w2 {option}") for option in OPTIONS]
    from mmpt.processors.merlot_questions import lay_out_merlot

    caps, cmasks = (torch.stack(part)[None] for part in zip(*(lay_out_merlot(text, 24) for text in texts), strict=True))
    times = [(number + 0.5) * source.duration / size for number in range(size)]
    vfeats, vmasks = pipeline.aligner.frames(list(source.pictures(times)), "video", size)
    expected = pipeline.model.option_scores(caps, cmasks, vfeats[None], vmasks[None])[0]
    found = scores_of(pipeline.answer(video, "w1 w2", OPTIONS))
    assert found == pytest.approx(dict(zip(OPTIONS, expected.tolist(), strict=True)), abs=1e-5)


@torch.inference_mode()
def test_reserve_fills_a_gap_with_the_nearest_answer(loaded, video):
    pipeline = loaded("ReserveCloze")
    found = pipeline.answer(video, "w1 <|MASK|> w2", answers=["w3", "w4"])
    spans = torch.full((2, 15), PAD)
    for row, text in zip(spans, ("w3", "w4"), strict=True):
        ids = pipeline.tokenizer.encode(text)
        row[: len(ids)] = torch.tensor(ids)
    item = pipeline.aligner("video", segments_of(source_of(video), 3.0), question("w1 <|MASK|> w2", pipeline))
    batch = {key: value[None] for key, value in item.items() if isinstance(value, torch.Tensor)}
    names = ("caps", "cmasks", "segments", "vfeats", "vmasks", "audio_pointers", "audio_clips")
    vector = pipeline.model.mask_vectors(**{name: batch[name] for name in names if name in batch})[0]
    expected = 100 * pipeline.model.encode_text(spans, spans != PAD) @ vector
    assert scores_of(found) == pytest.approx(dict(zip(("w3", "w4"), expected.tolist(), strict=True)), abs=1e-3)
    behind = pipeline.answer(video, "w1", answers=["w3", "w4"])
    again = pipeline.answer(video, "w1<|MASK|>", answers=["w3", "w4"])
    assert scores_of(behind) == pytest.approx(scores_of(again))
    with pytest.raises(DataError, match="2 gaps"):
        pipeline.answer(video, "<|MASK|> w1 <|MASK|>", answers=["w3"])
    with pytest.raises(DataError, match="answers="):
        pipeline.answer(video, "w1")


def question(text, pipeline):
    from mmpt.processors.open_questions import OpenQuestion

    return OpenQuestion(pipeline.aligner.ids(text))


@pytest.mark.parametrize(("name", "many"), [("ReserveTVQA", 7), ("ReserveVCR", 6), ("MERLOTVCR", 6)])
def test_models_of_a_fixed_number_of_options_take_any(loaded, video, name, many):
    pipeline = loaded(name)
    options = [f"w{number}" for number in range(many)]
    found = pipeline.answer(video, "w10", options)
    assert sum(answer.probability for answer in found) == pytest.approx(1)
    two = {answer.text: answer for answer in pipeline.answer(video, "w10", options[-2:])}
    chances = {answer.text: answer.probability for answer in found}
    ratio = two[options[-1]].probability / two[options[-2]].probability
    assert chances[options[-1]] / chances[options[-2]] == pytest.approx(ratio, rel=1e-4)


@torch.inference_mode()
def test_tvqa_adds_the_probabilities_of_subtitles_and_sound(loaded, video):
    from mmpt.processors.tvqa import TVQAQuestion

    pipeline = loaded("ReserveTVQA")
    options = [f"w{number}" for number in range(5)]
    seen = segments_around(source_of(video), 7, 14 / 3)
    asked = TVQAQuestion("", "", "w10", tuple(options), -1, ("",) * 7, len(seen))
    item = pipeline.aligner("video", seen, asked)
    batch = {key: value[None] for key, value in item.items() if isinstance(value, torch.Tensor)}
    expected = pipeline.model.option_scores(**batch)[0]
    found = pipeline.answer(video, "w10", options)
    assert scores_of(found) == pytest.approx(dict(zip(options, expected.tolist(), strict=True)), abs=1e-5)
    assert [answer.probability for answer in found] == pytest.approx([answer.score / 2 for answer in found])


def test_wrong_questions_are_refused(loaded, video):
    pipeline = loaded("VIOLETMultipleChoice")
    for options, message in [
        (["w1"], "nothing to choose"),
        ([], "there is no option"),
        (["w1", " w1 "], "'w1' is given more than once"),
        (["w1", " "], "option 1 is empty"),
    ]:
        with pytest.raises(DataError, match=message):
            pipeline.answer(video, "w2", options)
    with pytest.raises(DataError, match="give one of the two"):
        pipeline.answer(video, "w2", ["w1", "w3"], answers=["w1"])
    opened = loaded("VIOLETOpenEnded")
    for asked in ("", "  ", None):
        with pytest.raises(DataError, match="the question is"):
            opened.answer(video, asked)
    with pytest.raises(DataError, match="top: 0"):
        opened.answer(video, "w1", top=0)
    with pytest.raises(DataError, match="'w55' is none of the 5.*Did you mean 'w5'"):
        opened.answer(video, "w1", answers=["w55"])
    with pytest.raises(ConfigError, match="reads frames"):
        opened.answer(np.zeros((4, 512), np.float32), "w1")


def test_the_vocabulary_of_answers_reaches_a_saved_folder(loaded, video, tmp_path):
    pipeline = loaded("MERLOTOpenEnded")
    pipeline.save_pretrained(tmp_path / "saved")
    again = VideoTextPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert "train_path" not in again.config.dataset
    found = scores_of(again.answer(video, "w1 w2", top=5))
    assert found == pytest.approx(scores_of(pipeline.answer(video, "w1 w2", top=5)), abs=1e-5)
    assert set(found) == set(ANSWERS)


def test_without_a_vocabulary_of_answers_it_is_asked_for(loaded, video, monkeypatch):
    pipeline = loaded("VIOLETOpenEnded")
    lost = pipeline.config.copy()
    OmegaConf.update(lost, "dataset.train_path", None)
    monkeypatch.setattr(pipeline, "config", lost)
    with pytest.raises(DataError, match=r"chooses among 5 answers.*dataset\.train_path=FILE"):
        pipeline.answer(video, "w1")


def test_captions_take_decoding_options(loaded, video):
    pipeline = loaded("LAVENDER")
    plain = pipeline.caption(video)
    assert pipeline.caption(video, num_beams=3) and isinstance(plain, str)
    words = pipeline.caption(video, no_repeat_ngram_size=1).split()
    assert len(words) == len(set(words))
    drawn = [pipeline.caption(video, do_sample=True, temperature=5.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(ConfigError, match="num_beam: unknown key. Did you mean 'num_beams'"):
        pipeline.caption(video, num_beam=3)
    with pytest.raises(DataError, match="no video"):
        pipeline.caption([])


def test_a_jobs_decoding_options_hold_where_none_are_given(loaded, video, monkeypatch):
    pipeline = loaded("MMFusionNLG")
    (video,) = readable(pipeline, [video])
    greedy = pipeline.caption(video)
    config = pipeline.config.copy()
    OmegaConf.update(config, "gen_param", {"do_sample": True, "temperature": 9.0}, force_add=True)
    monkeypatch.setattr(pipeline, "config", config)
    assert pipeline.caption(video) != greedy
    assert pipeline.caption(video, do_sample=False) == greedy


def test_pictures_in_memory_are_read_without_loss():
    images = [np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8) for number in range(3)]
    stored = Pictures(images)
    assert len(stored) == 3 and len(stored[1:]) == 2
    assert all((decode_image(stored.read(number)) == images[number]).all() for number in range(3))


def test_segments_in_memory_are_those_that_tests_store(video, tmp_path):
    """The same stretches, frames and sounds as a store of windows holds, but for JPEG."""
    from mmpt.api.reserve_windows import cut_windows, question_items
    from mmpt.store.segment_store import open_segments
    from mmpt.store.video_list import VideoItem

    cut_windows(question_items([VideoItem("a", str(video))]), tmp_path / "store", progress=False)
    stored, found = open_segments(str(tmp_path / "store"))["a"], segments_of(FileSource(video), 3.0)
    assert len(stored) == len(found) and found.fields == {"images", "spectrograms"}
    for number in range(len(found)):
        np.testing.assert_allclose(stored.spectrogram(number), found.spectrogram(number))
        difference = np.abs(decode_image(stored.image(number)).astype(int) - found.image(number))
        assert difference.mean() < 4
    silent = segments_of(source_of(np.zeros((24, 8, 8, 3), np.uint8), fps=8), 3.0)
    assert silent.fields == {"images"} and len(silent) == 1


@pytest.mark.parametrize("name", ["VIOLETOpenEnded", "MERLOTOpenEnded"])
def test_the_number_of_answers_is_that_of_the_weights(folder, loaded, video, name):
    """As in the YAML of a job, which leaves model.num_labels to the data."""
    run = Path(loaded(name).source)
    config = OmegaConf.load(run / "config.yaml")
    config.model.num_labels = None
    OmegaConf.save(config, run / "config.yaml")
    again = VideoTextPipeline.from_pretrained(run, device="cpu")
    assert set(scores_of(again.answer(video, "w1"))) == set(ANSWERS)
