"""Folders of saved models on the Hugging Face hub: down and up."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt.api.saving import save_folder
from mmpt.utils.errors import CheckpointError

__all__ = ["download", "push"]

#: What a saved model is made of; nothing else of a repository is fetched.
_FILES = ["config.yaml", "model.safetensors", "README.md", "card.json", "bert/*", "tokenizer/*", "s3d.pth"]


def download(repo_id: str, revision: str | None = None) -> Path:
    """Return a local copy of a saved model, from the cache where it is there; ``HF_HUB_OFFLINE`` is honoured.

    Raises:
        CheckpointError: if it cannot be had; names what was looked for.
    """
    import huggingface_hub  # it comes with transformers

    try:
        return Path(huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # the client raises many kinds, of its HTTP library too
        at = "" if revision is None else f" at revision {revision}"
        raise CheckpointError(
            f"{repo_id}: there is no such file or folder here, nor does the Hugging Face hub or its cache deliver a "
            f"model of that name{at} ({_first_line(error)})"
        ) from error


def push(pipeline: Any, repo_id: str, private: bool, token: str | None, saving: Mapping[str, Any]) -> str:
    """Save a pipeline into a folder that is thrown away, and upload it as a model; return its address.

    Raises:
        CheckpointError: if the hub refuses.
    """
    import huggingface_hub

    client = huggingface_hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / repo_id.rpartition("/")[2]
        save_folder(pipeline, saved, **saving, name=repo_id)
        try:
            address = str(client.create_repo(repo_id, private=private, exist_ok=True))
            client.upload_folder(
                folder_path=str(saved), repo_id=repo_id, commit_message=f"A {pipeline.system} model of MMPT"
            )
        except Exception as error:  # as above
            raise CheckpointError(f"{repo_id}: the hub did not take the model ({_first_line(error)})") from error
    return address


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
