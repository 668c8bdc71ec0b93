"""Which calls a loaded model answers, and which systems answer a call: the one table of both.

A model class says what it can do in its ``capabilities`` (:class:`mmpt.models.base.VideoTextModel`); a config may
change them, so an instance says it best.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmpt.models.base import VideoTextModel
from mmpt.models.cross_modal import CrossModalModel
from mmpt.models.fusion import FusionModel
from mmpt.models.lavender_base import LAVENDERBase
from mmpt.models.lavender_heads import LAVENDERMultiHead
from mmpt.models.merlot_base import MERLOTBase
from mmpt.models.reserve_base import ReserveModel
from mmpt.models.videoclip import MMFusionSeparate
from mmpt.utils.errors import MMPTError, nearest
from mmpt.utils.registry import resolve_class

__all__ = [
    "CALLS",
    "ROWS",
    "SYSTEMS",
    "MissingCapabilityError",
    "ModelRow",
    "calls_of",
    "require_call",
    "rows_with",
    "system_of",
]

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

_SCORES = frozenset({"similarity", "classify", "retrieve", "segment", "choose"})
#: What a capability is good for. Those that are not here serve a training or a test alone.
_CALLS_OF: Mapping[str, frozenset[str]] = {
    "retrieval": _SCORES | {"encode_video", "encode_text", "index"},
    "fusion": _SCORES,
    "segmentation": frozenset({"segment"}),
    "localization": frozenset({"segment"}),
    "multiple_choice": frozenset({"choose"}),
    "answering": frozenset({"answer"}),
    "captioning": frozenset({"caption"}),
}
#: What a head of a model of many heads is good for.
_CALLS_OF_HEAD: Mapping[str, frozenset[str]] = {
    "retrieval": _SCORES,
    "retmc": frozenset({"choose"}),
    "qamc": frozenset({"choose"}),
    "qaoe": frozenset({"answer"}),
}
#: Base class -> system; a subclass stands before what it is a kind of.
_SYSTEM_OF: Mapping[type, str] = {
    MMFusionSeparate: "VideoCLIP",
    FusionModel: "VLM",
    LAVENDERBase: "LAVENDER",
    CrossModalModel: "VIOLET",
    MERLOTBase: "MERLOT",
    ReserveModel: "MERLOT Reserve",
}


class MissingCapabilityError(MMPTError):
    """Report a call that the loaded model cannot answer; names the systems that can."""


class ModelRow(NamedTuple):
    """A model class as users meet it.

    Attributes:
        model_cls: its name in YAML.
        example: a config of the repository that makes a model of it.
        capabilities: what a model of that config is for; None: all that its class is.
    """

    model_cls: str
    example: str
    capabilities: frozenset[str] | None = None

    @property
    def calls(self) -> frozenset[str]:
        """The calls that a model of the example answers."""
        return _calls(self.good_for)

    @property
    def good_for(self) -> frozenset[str]:
        """The capabilities of a model of the example."""
        return self.model_class.capabilities if self.capabilities is None else self.capabilities

    @property
    def model_class(self) -> type[VideoTextModel]:
        """The class."""
        return resolve_class("model", self.model_cls)

    @property
    def system(self) -> str:
        """The system that it is of."""
        return system_of(self.model_class)


#: The classes that answer calls, each with configs; of a call and a system the first is the one to take.
ROWS: tuple[ModelRow, ...] = (
    ModelRow("MMFusionSeparate", "projects/retri/videoclip.yaml"),
    ModelRow("MMFusionJoint", "projects/task/vtt.yaml", frozenset({"retrieval"})),  # its halves are isolated
    ModelRow("MMFusionShare", "projects/retri/videoretri.yaml"),
    ModelRow("MMFusionSeparateActionSegmentation", "projects/task/coin_videoclip.yaml"),
    ModelRow("MMFusionSeparateActionLocalization", "projects/task/crosstask_videoclip.yaml"),
    ModelRow("MMFusionActionSegmentation", "projects/task/coin.yaml"),
    ModelRow("MMFusionActionLocalization", "projects/task/crosstask.yaml"),
    ModelRow("MMFusionNLG", "projects/task/youcookcap.yaml"),
    ModelRow("VIOLETRetrieval", "projects/task/violet_msrvtt_retrieval.yaml"),
    ModelRow("VIOLETMultipleChoice", "projects/task/violet_tgif_action.yaml"),
    ModelRow("VIOLETOpenEnded", "projects/task/violet_msrvtt_qa.yaml"),
    ModelRow("VIOLETPretraining", "projects/task/violet_pretrain.yaml"),
    ModelRow("LAVENDER", "projects/task/lavender_msrvtt_retrieval.yaml", frozenset({"fusion"})),
    ModelRow("LAVENDER", "projects/task/lavender_tgif_action.yaml", frozenset({"multiple_choice"})),
    ModelRow("LAVENDER", "projects/task/lavender_msrvtt_qa.yaml", frozenset({"answering"})),
    ModelRow("LAVENDER", "projects/task/lavender_msrvtt_cap.yaml", frozenset({"captioning"})),
    ModelRow("LAVENDERMultiHead", "projects/task/test_lavender_multihead_didemo_retrieval.yaml", frozenset({"fusion"})),
    ModelRow(
        "LAVENDERMultiHead", "projects/task/test_lavender_multihead_tgif_action.yaml", frozenset({"multiple_choice"})
    ),
    ModelRow("LAVENDERMultiHead", "projects/task/test_lavender_multihead_msvd_qa.yaml", frozenset({"answering"})),
    ModelRow("LAVENDERMultiHead", "projects/task/test_lavender_multihead_msrvtt_cap.yaml", frozenset({"captioning"})),
    ModelRow("LAVENDERTaskSpecificRetrieval", "projects/task/lavender_ts_didemo_retrieval.yaml"),
    ModelRow("LAVENDERTaskSpecificOptions", "projects/task/lavender_ts_lsmdc_mc.yaml"),
    ModelRow("LAVENDERTaskSpecificChoice", "projects/task/lavender_ts_tgif_action.yaml"),
    ModelRow("LAVENDERTaskSpecificOpenEnded", "projects/task/lavender_ts_msvd_qa.yaml"),
    ModelRow("LAVENDERTaskSpecificPretraining", "projects/task/lavender_ts_pretrain.yaml"),
    ModelRow("MERLOTPretraining", "projects/task/merlot_pretrain.yaml"),
    ModelRow("MERLOTAnswering", "projects/task/merlot_tgif_action.yaml"),
    ModelRow("MERLOTVCR", "projects/task/merlot_vcr.yaml"),
    ModelRow("MERLOTOpenEnded", "projects/task/merlot_msrvtt_qa.yaml"),
    ModelRow("ReservePretraining", "projects/task/reserve_pretrain.yaml"),
    ModelRow("ReserveTVQA", "projects/task/reserve_tvqa.yaml"),
    ModelRow("ReserveVCR", "projects/task/reserve_vcr.yaml"),
    ModelRow("ReserveCloze", "projects/task/test_reserve_msrvtt_qa_zs.yaml"),
)


def calls_of(model: Any) -> frozenset[str]:
    """Return which of :data:`CALLS` a model answers; of a class, what its models do unless their config says else."""
    if isinstance(model, LAVENDERMultiHead):
        head = model.options.heads.get(model.member)
        return _calls({"captioning"}) | (_CALLS_OF_HEAD[head.type] if head is not None else frozenset())
    return _calls(getattr(model, "capabilities", frozenset()))


def system_of(model: Any) -> str:
    """Return the system, of :data:`SYSTEMS`, of a model or its class; the name of a class that is of none."""
    kind = model if isinstance(model, type) else type(model)
    return next((system for base, system in _SYSTEM_OF.items() if issubclass(kind, base)), kind.__name__)


def rows_with(call: str) -> dict[str, ModelRow]:
    """Return for each system that answers a call the class to take, in the order of :data:`SYSTEMS`."""
    found: dict[str, ModelRow] = {}
    # One that was trained to choose does it better than one that scores each option alone.
    for row in sorted(ROWS, key=lambda row: call == "choose" and "multiple_choice" not in row.good_for):
        if call in row.calls:
            found.setdefault(row.system, row)
    return {system: found[system] for system in SYSTEMS if system in found}


def require_call(model_or_pipeline: Any, call: str) -> None:
    """Do nothing if a model, or that of a pipeline, answers a call.

    Raises:
        MissingCapabilityError: if it does not; says what it answers, and which systems answer the call.
        MMPTError: if there is no such call.
    """
    if call not in CALLS:
        raise MMPTError(f"there is no call {call!r} (there are {', '.join(CALLS)}).{nearest(call, CALLS)}")
    pipeline = hasattr(model_or_pipeline, "calls")
    calls = model_or_pipeline.calls if pipeline else calls_of(model_or_pipeline)
    if call in calls:
        return
    model = model_or_pipeline.model if pipeline else model_or_pipeline
    source = f"{model_or_pipeline.source}: " if pipeline else ""
    own = ", ".join(known for known in CALLS if known in calls) or "none of the calls"
    able = ", ".join(f"{system} ({row.model_cls}, {row.example})" for system, row in rows_with(call).items())
    raise MissingCapabilityError(
        f"{source}{type(model).__name__} (of {system_of(model)}) does not {_TO_DO.get(call, call)}; it has: {own}. "
        f"Systems that have {call}: {able}"
    )


#: Calls in words, where their names are not.
_TO_DO = {
    "encode_video": "encode a video alone",
    "encode_text": "encode a text alone",
    "similarity": "score texts against videos",
    "index": "give vectors to search among",
    "answer": "answer open questions",
    "choose": "choose among the options of a question",
    "caption": "write captions",
}


def _calls(capabilities: Any) -> frozenset[str]:
    return frozenset().union(*(_CALLS_OF.get(name, frozenset()) for name in capabilities))
