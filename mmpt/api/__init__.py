"""What programs of users call: a trained model on their own videos and texts."""

from mmpt.api.mmpt_model import MMPTModel
from mmpt.api.pipeline import VideoTextPipeline

__all__ = ["MMPTModel", "VideoTextPipeline"]
