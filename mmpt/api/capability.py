"""Which calls a loaded model answers, and which systems answer a call."""

from mmpt.utils.errors import MMPTError

__all__ = ["CALLS", "SYSTEMS", "MissingCapabilityError"]

#: The systems, as their papers call them.
SYSTEMS = ("VideoCLIP", "VLM", "VIOLET", "LAVENDER", "MERLOT", "MERLOT Reserve")
#: Calls of a pipeline; ``answer`` is open-ended, ``choose`` is ``answer`` with options.
CALLS = (
    "encode_video",
    "encode_text",
    "similarity",
    "classify",
    "retrieve",
    "segment",
    "index",
    "answer",
    "choose",
    "caption",
)


class MissingCapabilityError(MMPTError):
    """Report a call that the loaded model cannot answer; names the systems that can."""
