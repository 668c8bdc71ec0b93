"""The published way of sampling How2, as the reference of ``bench_sampling.py``: one clip at a time, in Python.

Sections 1.1 and 1.2 of the specification of the published toolkit: memory maps opened for every sample, tokens as
lists of lists, tensors stacked.
"""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["CLS", "MASK", "MAX_TEXT", "MAX_VIDEO", "PAD", "SEP", "WORDS", "NaiveDataset", "NaiveMaskedDataset"]

PAD, CLS, SEP, MASK, WORDS = 0, 2, 3, 4, 64
MAX_VIDEO, MAX_TEXT = 32, 61


class NaiveDataset:
    """VideoCLIP's items: groups of videos, overlapped clips and texts."""

    def __init__(self, folder: Path, groups: list[list[tuple[Any, ...]]], clips: int) -> None:
        self.folder, self.groups, self.clips = folder, groups, clips

    def __getitem__(self, index: int) -> dict[str, Any]:
        random.seed(index)
        items = [self._video(*video[-2:]) for video in self.groups[index]]
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}

    def _open(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        data = np.load(self.folder / f"{name}_data.npy", mmap_mode="r")
        return data, np.load(self.folder / f"{name}_starts.npy", mmap_mode="r")

    def _read(self, name: str, index: int) -> np.ndarray:
        data, starts = self._open(name)
        return data[starts[index] : starts[index + 1]]

    def _video(self, shard: int, index: int) -> dict[str, Any]:
        feature = self._read(f"train_{shard}", index)
        times = self._read(f"train_{shard}.startends", index)
        caps = self._read(f"train_{shard}.caps_ids", index)
        text = {
            "start": times[:, 0].tolist(),
            "end": times[:, 1].tolist(),
            "cap": [[token for token in clip if token != -1] for clip in caps.tolist()],
        }
        samples = [self._sample(feature, text) for _ in range(self.clips)]
        return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}

    def _sample(self, feature: np.ndarray, text: dict[str, Any]) -> dict[str, Any]:
        run = self._grow_text(text, random.randint(8, 64))
        low, high = math.floor(text["start"][run[0]]), math.ceil(text["end"][run[-1]])
        center = random.randint(low, high) if low < high else (low + high) // 2
        start, end = self._grow_video(len(feature), random.randint(3, 32), min(max(center, 0), len(feature) - 1))
        vfeats, vmasks = self._video_seq(feature, [(start, end)])
        caps, cmasks = self._text_seq([text["cap"][i] for i in run])
        bounds = {"video_start": start, "video_end": end, "text_start": run[0], "text_end": run[-1] + 1}
        tensors = {key: torch.tensor(value) for key, value in bounds.items()}
        return {"caps": caps, "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks, **tensors}

    def _grow_text(self, text: dict[str, Any], limit: int) -> list[int]:
        count = len(text["cap"])
        run = [random.randint(0, count - 1)]
        words = len(text["cap"][run[0]])
        span = max(text["end"][run[0]] - text["start"][run[0]], 0.0)
        while (run[0] > 0 or run[-1] < count - 1) and words < limit and span < 256:
            if random.random() > 0.5 and run[-1] < count - 1:
                run.append(run[-1] + 1)
                words += len(text["cap"][run[-1]])
            elif run[0] > 0:
                run.insert(0, run[0] - 1)
                words += len(text["cap"][run[0]])
            else:
                run.append(run[-1] + 1)
                words += len(text["cap"][run[-1]])
            span = text["end"][run[-1]] - text["start"][run[0]]
        return run

    def _grow_video(self, video_len: int, max_len: int, center: int) -> tuple[int, int]:
        start = end = center
        for _ in range(max_len):
            if start == 0 and end == video_len:
                break
            if start == 0 or (end < video_len and random.random() > 0.5):
                end += 1
            else:
                start -= 1
        return start, end

    def _video_seq(self, feature: np.ndarray, clips: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        vfeats = np.zeros((MAX_VIDEO, feature.shape[1]), dtype=np.float32)
        vmasks = torch.zeros((MAX_VIDEO,), dtype=torch.bool)
        video_len = 0
        for start, end in clips:
            clip_len = min(end - start, MAX_VIDEO - video_len)
            if clip_len > 0:
                vfeats[video_len : video_len + clip_len] = feature[start : start + clip_len]
                vmasks[video_len : video_len + clip_len] = 1
                video_len += clip_len
        return torch.from_numpy(vfeats), vmasks

    def _text_seq(self, clips: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        words = [token for clip in clips for token in clip][:MAX_TEXT]
        caps = [CLS, SEP, *words, SEP]
        pad_lens = MAX_TEXT + 3 - len(caps)
        return torch.LongTensor(caps + [PAD] * pad_lens), torch.tensor([True] * len(caps) + [False] * pad_lens)


class NaiveMaskedDataset(NaiveDataset):
    """VLM's items: one video, clips that span their texts, masked frames and words."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        random.seed(index)
        torch.manual_seed(index)
        return self._video(*self.groups[index][0][-2:])

    def _sample(self, feature: np.ndarray, text: dict[str, Any]) -> dict[str, Any]:
        run = self._grow_text(text, random.randint(8, 64))
        start = min(max(math.floor(text["start"][run[0]]), 0), len(feature) - 1)
        end = min(max(math.ceil(text["end"][run[-1]]), start + 1), len(feature))
        vfeats, vmasks = self._video_seq(feature, [(start, end)])
        caps, cmasks = self._text_seq([text["cap"][i] for i in run])
        words, frames = 0.15, 0.15
        if random.random() < 0.5:
            words, frames = (1.0, 0.0) if random.random() > 0.5 else (0.0, 1.0)
        video_label = torch.bernoulli(torch.full(vmasks.shape, frames)).bool() & vmasks
        caps, text_label = self._mask_words(caps, words)
        bounds = {"video_start": start, "video_end": end, "text_start": run[0], "text_end": run[-1] + 1}
        tensors = {key: torch.tensor(value) for key, value in bounds.items()}
        labels = {"video_label": video_label, "text_label": text_label}
        return {"caps": caps, "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks, **labels, **tensors}

    def _mask_words(self, caps: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        labels = caps.clone()
        probability = torch.full(caps.shape, share)
        special = [token in (CLS, SEP, PAD) for token in caps.tolist()]
        probability.masked_fill_(torch.tensor(special, dtype=torch.bool), value=0.0)
        chosen = torch.bernoulli(probability).bool()
        labels[~chosen] = -100
        hidden = torch.bernoulli(torch.full(caps.shape, 0.8)).bool() & chosen
        caps[hidden] = MASK
        other = torch.bernoulli(torch.full(caps.shape, 0.5)).bool() & chosen & ~hidden
        caps[other] = torch.randint(WORDS, caps.shape)[other]
        return caps, labels
