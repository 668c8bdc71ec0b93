"""MIL-NCE pre-training: each clip has several candidate texts (Miech et al., CVPR 2020)."""

from typing import Any

from mmpt.models.embedding import flatten_samples
from mmpt.tasks.task import Task
from mmpt.utils.errors import DataError

__all__ = ["MILNCETask"]


class MILNCETask(Task):
    """Task whose model sees B videos and B x C texts: the C candidates of each video, video after video."""

    def flat_subsample(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Merge the leading dimensions: videos to (B, ..), and ``caps`` and ``cmasks`` (.., C, L) to (B * C, L).

        Raises:
            DataError: if the texts have no dimension of candidates.
        """
        caps, vmasks = batch["caps"], batch["vmasks"]
        if caps.shape[:-2] != vmasks.shape[:-1]:
            raise DataError(
                f"dataset.aligner: texts {tuple(caps.shape)} of videos {tuple(vmasks.shape)} are no candidates; "
                "MILNCETask needs an aligner that gives several texts per clip, such as How2MILNCEAligner"
            )
        texts = {key: batch[key].flatten(0, -2) for key in ("caps", "cmasks")}
        return flatten_samples({**batch, "caps": caps[..., 0, :]}) | texts
