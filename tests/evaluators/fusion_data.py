"""A tiny model that fuses, and test sets for it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmpt.models.cross_modal import CrossModalModel, States, tiny_cross_modal_config

__all__ = ["Clips", "Fusing", "config_of", "fusing", "loader_of"]


class Fusing(CrossModalModel):
    """Scores a pair by its text's first position; ``prompts`` stand before a text. Counts what it is asked."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.fc = nn.Linear(self.hidden_size, 1)
        self.encoded = self.fused = 0
        self.kill_at: int | None = None

    def encode_video(self, vfeats: Tensor, vmasks: Tensor | None = None) -> States:
        self.encoded += len(vfeats)
        return super().encode_video(vfeats, vmasks)

    def encode_text(self, caps: Tensor, cmasks: Tensor, prompts: Tensor | None = None, **_: Any) -> States:
        if prompts is None:
            return super().encode_text(caps, cmasks)
        before = self.enc_txt.emb_txt(prompts)
        after = self.enc_txt.emb_txt(caps)
        mask = torch.cat([torch.ones_like(prompts, dtype=torch.bool), cmasks], dim=1)
        return States(torch.cat([before, after], dim=1), mask)

    def score_aligned(self, text: States, video: States) -> Tensor:
        self.fused += len(text.values)
        if self.kill_at is not None and self.fused > self.kill_at:
            raise KeyboardInterrupt
        return self.fc(self.fuse(video, text).last_hidden_state[:, video.values.shape[1]])[:, 0]

    def forward(self) -> None: ...


def fusing(seed: int = 0) -> Fusing:
    """Return a model whose random weights are large enough for scores to differ."""
    torch.manual_seed(seed)
    model = Fusing(tiny_cross_modal_config("Fusing", dataset={"image_size": 32}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


class Clips(Dataset[dict[str, Any]]):
    """Items of videos: ``names[i]``, with the frames ``clips[i]`` (a number; by default that of the name)."""

    def __init__(self, names: list[str], clips: list[int] | None = None, prompt: bool = False, seed: int = 0) -> None:
        known = list(dict.fromkeys(names))
        self.names, self.clips = names, clips or [known.index(name) for name in names]
        self.prompt, self.seed = prompt, seed
        self.meta_processor = [(name, f"text {row}") for row, name in enumerate(names)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> dict[str, Any]:
        words = np.random.default_rng([self.seed, row]).integers(5, 60, 6)
        caps = torch.tensor([2, *words[: 3 + row % 4], 3] + [0] * (3 - row % 4))
        frames = np.random.default_rng([1, self.clips[row]]).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
        frames = frames // 2 + (self.clips[row] * 97 % 128)  # so that videos differ as much as words do
        item = {
            "vfeats": torch.from_numpy(frames.astype(np.uint8)),
            "vmasks": torch.tensor([True, self.clips[row] % 3 != 1]),
            "caps": caps,
            "cmasks": caps != 0,
            "video_id": self.names[row],
            "text": f"text {row}",
            "idx": row,
        }
        return item | ({"prompts": torch.tensor([2, 7, 8, 3])} if self.prompt else {})


def loader_of(clips: Dataset[dict[str, Any]], batch_size: int = 4) -> DataLoader[dict[str, Any]]:
    """Return a plain loader."""
    from mmpt.datasets.mmdataset import MMDataset

    return DataLoader(clips, batch_size=batch_size, collate_fn=MMDataset.collater)


def config_of(folder: Any, **options: Any) -> dict[str, Any]:
    """Return the config of a test that writes to a folder."""
    names = {"metric": "RetrievalMetric", "predictor": "FusionRetrievalPredictor"}
    return {**names, "eval": {"save_path": str(folder), "pairs_per_batch": 5, **options}}
