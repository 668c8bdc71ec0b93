"""Every plain name that MMPT understands in YAML, as data: name -> class and presets.

Entries whose target is None are names of the public configs whose classes are not built yet:
files that name them load and expand, and running one says so.
"""

from mmpt.utils.registry import Entry

__all__ = ["TABLE"]

_HOW2 = "mmpt.processors.how2"
_SAMPLED = "mmpt.processors.how2_aligners:ClipSamplingAligner"
_DATASET_MASKING = ("lazy_vfeat_mask", "mfm_probability", "mlm_probability", "mm_prob", "mm_type", "keep_prob")
_WINDOWS = ("sliding_window", "sliding_window_size")
_ISO = {"dataset": ("num_iso_layer",), "model": ("mm_encoder_cls", "use_seg_emb")}


def _later(**keys: tuple[str, ...]) -> Entry:
    return Entry(None, keys=keys)


TABLE: dict[str, dict[str, Entry]] = {
    "task": {
        "Task": Entry("mmpt.tasks.task:Task"),
        "VideoRetriTask": Entry("mmpt.tasks.retri_task:VideoRetriTask"),
        "VLMTask": _later(),
        "MILNCETask": _later(),
    },
    "model": {
        "MMFusionSeparate": Entry("mmpt.models.videoclip:MMFusionSeparate"),
        "MMFusionMFMMLM": Entry(None, keys=_ISO),
        "MMFusionMTM": Entry(None, keys=_ISO),
        "MMFusionShare": Entry(None, keys=_ISO),
        "MMFusionJoint": Entry(None, keys=_ISO),
        "MMFusionActionSegmentation": Entry(None, keys=_ISO),
        "MMFusionActionLocalization": Entry(None, keys=_ISO),
        "MMFusionSeparateActionSegmentation": Entry(None, keys=_ISO),
        "MMFusionSeparateActionLocalization": Entry(None, keys=_ISO),
        "MMFusionShareActionLocalization": Entry(None, keys=_ISO),
        "MMFusionNLG": Entry(None, keys={**_ISO, "model": (*_ISO["model"], "max_decode_length")}),
    },
    "encoder": {
        "BertModel": Entry("mmpt.modules.bert:BertModel"),
        "MMBertForEncoder": Entry("mmpt.modules.mmbert:MMBertForEncoder"),
        "MMBertForJoint": _later(),
        "MMBertForMFMMLM": _later(),
        "MMBertForMTM": _later(),
        "MMBertForNLG": _later(),
        "MMBertForTokenClassification": _later(),
    },
    "loss": {
        "MMContraLoss": Entry("mmpt.losses.contrastive:MMContraLoss"),
        "T2VContraLoss": Entry("mmpt.losses.contrastive:T2VContraLoss"),
        "V2TContraLoss": Entry("mmpt.losses.contrastive:V2TContraLoss"),
        "MTM": _later(),
        "MFMMLM": _later(),
        "NLGLoss": _later(),
        "CrossEntropy": _later(),
        "BCE": _later(),
        "NCE": _later(),
    },
    "meta_processor": {
        "How2MetaProcessor": Entry(f"{_HOW2}:How2MetaProcessor"),
        "ShardedHow2MetaProcessor": Entry(f"{_HOW2}:ShardedHow2MetaProcessor"),
        "ShardedHow2VideoRetriMetaProcessor": Entry(f"{_HOW2}:ShardedHow2VideoRetriMetaProcessor"),
        "How2VideoRetriMetaProcessor": Entry(f"{_HOW2}:How2VideoRetriMetaProcessor"),
        "MSRVTTMetaProcessor": Entry("mmpt.processors.msrvtt:MSRVTTMetaProcessor"),
        "YoucookMetaProcessor": Entry("mmpt.processors.youcook:YoucookMetaProcessor"),
        "DiDeMoMetaProcessor": Entry("mmpt.processors.didemo:DiDeMoMetaProcessor"),
        "DiDeMoParagraphMetaProcessor": Entry("mmpt.processors.didemo:DiDeMoParagraphMetaProcessor"),
        "MSRVTTQAMetaProcessor": _later(),
        "YoucookNLGMetaProcessor": _later(dataset=("trainval_annotation", "use_annotation_text")),
        "CrossTaskMetaProcessor": _later(
            dataset=("train_csv_path", "val_csv_path", "primary_path", "related_path", "annotation_path", "n_train")
        ),
        "COINActionSegmentationMetaProcessor": _later(),
    },
    "video_processor": {
        "VideoProcessor": Entry("mmpt.processors.base:VideoProcessor"),
        "ShardedVideoProcessor": Entry(f"{_HOW2}:ShardedVideoProcessor"),
        "ShardedVideoRetriVideoProcessor": Entry(f"{_HOW2}:VideoRetriVideoProcessor", {"sharded": True}),
        "VideoRetriVideoProcessor": Entry(f"{_HOW2}:VideoRetriVideoProcessor", {"sharded": False}),
        "YoucookVideoProcessor": Entry("mmpt.processors.youcook:YoucookVideoProcessor"),
        "CrossTaskVideoProcessor": _later(dataset=("vfeat_dir",)),
    },
    "text_processor": {
        "TextProcessor": Entry("mmpt.processors.base:TextProcessor"),
        "ShardedTextProcessor": Entry(f"{_HOW2}:ShardedTextProcessor"),
        "ShardedVideoRetriTextProcessor": Entry(f"{_HOW2}:VideoRetriTextProcessor", {"sharded": True}),
        "VideoRetriTextProcessor": Entry(f"{_HOW2}:VideoRetriTextProcessor", {"sharded": False}),
        "PKLJSONStrTextProcessor": Entry(f"{_HOW2}:PKLJSONStrTextProcessor"),
        "MSRVTTTextProcessor": Entry("mmpt.processors.msrvtt:MSRVTTTextProcessor"),
        "DiDeMoTextProcessor": Entry("mmpt.processors.base:TextProcessor"),
        "MSRVTTQATextProcessor": _later(),
        "NLGTextProcessor": _later(),
        "CrossTaskTextProcessor": _later(),
        "COINActionSegmentationTextProcessor": _later(),
    },
    "aligner": {
        "FixedLenAligner": Entry(_SAMPLED, {"text_length": "fixed", "video_clip": "text_span"}),
        "VariedLenAligner": Entry(_SAMPLED, {"text_length": "varied", "video_clip": "text_span"}),
        "StartClipAligner": Entry(_SAMPLED, {"text_length": "fixed", "video_clip": "text_span", "center": "first"}),
        "OverlappedAligner": Entry(_SAMPLED, {"text_length": "varied", "video_clip": "overlapped"}),
        "VideoRetriAligner": Entry(_SAMPLED, {"text_length": "varied", "video_clip": "text_span", "grouped": True}),
        "VideoRetriOverlappedAligner": Entry(
            _SAMPLED, {"text_length": "varied", "video_clip": "overlapped", "grouped": True}
        ),
        "DSAligner": Entry("mmpt.processors.ds_aligner:DSAligner"),
        "DiDeMoAligner": Entry("mmpt.processors.ds_aligner:DSAligner"),
        "MFMMLMAligner": _later(dataset=("subsampling", "sampled_min_len", "sampled_max_len", *_DATASET_MASKING)),
        "How2MILNCEAligner": _later(),
        "MSRVTTQAAligner": _later(),
        "DSNLGAligner": _later(),
        "CrossTaskAligner": _later(dataset=_WINDOWS),
        "COINActionSegmentationAligner": _later(dataset=_WINDOWS),
    },
    "predictor": {
        "RetrievalPredictor": Entry("mmpt.evaluators.retrieval_predictor:RetrievalPredictor"),
        "DiDeMoPredictor": Entry("mmpt.evaluators.didemo_predictor:DiDeMoPredictor"),
        "QAPredictor": _later(),
        "NLGPredictor": _later(),
        "CrossTaskPredictor": _later(),
        "COINPredictor": _later(),
        "COINZSPredictor": _later(),
    },
    "metric": {
        "RetrievalMetric": Entry("mmpt.evaluators.metrics:RetrievalMetric"),
        "DiDeMoMetric": Entry("mmpt.evaluators.metrics:DiDeMoMetric"),
        "QAMetric": _later(),
        "NLGMetric": _later(),
        "CrossTaskMetric": _later(),
        "COINActionSegmentationMetric": _later(),
    },
    "vectorpool": {"VideoVectorPool": Entry("mmpt.modules.vectorpool:VideoVectorPool")},
    "retriever": {"VectorRetriever": Entry("mmpt.modules.retri:VectorRetriever")},
    "feature_encoder": {
        "s3d": Entry("mmpt.modules.feature_encoders:S3DEncoder"),
        "conv3d": Entry("mmpt.modules.feature_encoders:SmallConv3dEncoder"),
        "hf": Entry("mmpt.modules.feature_encoders:HuggingFaceEncoder"),
    },
}
