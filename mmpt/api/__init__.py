"""What programs of users call: a trained model on their own videos and texts."""

from mmpt.api.mmpt_model import MMPTModel

__all__ = ["MMPTModel"]
