"""Every plain name that MMPT understands in YAML, as data: name -> class and presets."""

from mmpt.utils.registry import Entry

__all__ = ["TABLE"]

_HOW2 = "mmpt.processors.how2"
_SAMPLED = "mmpt.processors.how2_aligners:ClipSamplingAligner"
_VLM = "mmpt.models.vlm"
_DENSE = "mmpt.models.dense"
_LOSSES = "mmpt.losses"
_CORPUS = "mmpt.processors.corpus"

TABLE: dict[str, dict[str, Entry]] = {
    "task": {
        "Task": Entry("mmpt.tasks.task:Task"),
        "VideoRetriTask": Entry("mmpt.tasks.retri_task:VideoRetriTask"),
        "VLMTask": Entry("mmpt.tasks.vlm_task:VLMTask"),
        "MILNCETask": Entry("mmpt.tasks.milnce_task:MILNCETask"),
    },
    "model": {
        "MMFusionSeparate": Entry("mmpt.models.videoclip:MMFusionSeparate"),
        "MMFusionMFMMLM": Entry(f"{_VLM}:MMFusionMFMMLM"),
        "MMFusionMTM": Entry(f"{_VLM}:MMFusionMTM"),
        "MMFusionShare": Entry(f"{_VLM}:MMFusionShare"),
        "MMFusionJoint": Entry(f"{_VLM}:MMFusionJoint"),
        "MMFusionActionSegmentation": Entry(f"{_DENSE}:MMFusionActionSegmentation"),
        "MMFusionActionLocalization": Entry(f"{_DENSE}:MMFusionActionLocalization"),
        "MMFusionSeparateActionSegmentation": Entry(f"{_DENSE}:MMFusionSeparateActionSegmentation"),
        "MMFusionSeparateActionLocalization": Entry(f"{_DENSE}:MMFusionSeparateActionLocalization"),
        "MMFusionShareActionLocalization": Entry(f"{_DENSE}:MMFusionShareActionLocalization"),
        "MMFusionNLG": Entry("mmpt.models.captioning:MMFusionNLG"),
    },
    "encoder": {
        "BertModel": Entry("mmpt.modules.bert:BertModel"),
        "MMBertForEncoder": Entry("mmpt.modules.mmbert:MMBertForEncoder"),
        "MMBertForJoint": Entry("mmpt.modules.mmbert:MMBertForEncoder"),
        "MMBertForMFMMLM": Entry("mmpt.modules.mmbert_heads:MMBertForMFMMLM"),
        "MMBertForMTM": Entry("mmpt.modules.mmbert_heads:MMBertForMTM"),
        "MMBertForNLG": Entry("mmpt.modules.mmbert_heads:MMBertForNLG"),
        "MMBertForTokenClassification": Entry("mmpt.modules.mmbert_heads:MMBertForTokenClassification"),
    },
    "loss": {
        "MMContraLoss": Entry("mmpt.losses.contrastive:MMContraLoss"),
        "T2VContraLoss": Entry("mmpt.losses.contrastive:T2VContraLoss"),
        "V2TContraLoss": Entry("mmpt.losses.contrastive:V2TContraLoss"),
        "MTM": Entry(f"{_LOSSES}.masked:MTM"),
        "MFMMLM": Entry(f"{_LOSSES}.masked:MFMMLM"),
        "NCE": Entry(f"{_LOSSES}.nce:NCE"),
        "MILNCELoss": Entry(f"{_LOSSES}.nce:MILNCELoss"),
        "MultipleChoiceLoss": Entry(f"{_LOSSES}.multiple_choice:MultipleChoiceLoss"),
        "NLGLoss": Entry(f"{_LOSSES}.generic:NLGLoss"),
        "CrossEntropy": Entry(f"{_LOSSES}.generic:CrossEntropy"),
        "ArgmaxCrossEntropy": Entry(f"{_LOSSES}.generic:ArgmaxCrossEntropy"),
        "BCE": Entry(f"{_LOSSES}.generic:BCE"),
        "MSE": Entry(f"{_LOSSES}.generic:MSE"),
        "L1": Entry(f"{_LOSSES}.generic:L1"),
        "SmoothL1": Entry(f"{_LOSSES}.generic:SmoothL1"),
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
        "MSRVTTQAMetaProcessor": Entry("mmpt.processors.msrvtt_qa:MSRVTTQAMetaProcessor"),
        "YoucookNLGMetaProcessor": Entry("mmpt.processors.youcook_captioning:YoucookNLGMetaProcessor"),
        "CrossTaskMetaProcessor": Entry("mmpt.processors.crosstask:CrossTaskMetaProcessor"),
        "COINActionSegmentationMetaProcessor": Entry("mmpt.processors.coin:COINActionSegmentationMetaProcessor"),
        "CorpusRetrievalMetaProcessor": Entry(f"{_CORPUS}:CorpusMetaProcessor", {"items": "retrieval"}),
        "CorpusQAMetaProcessor": Entry(f"{_CORPUS}:CorpusMetaProcessor", {"items": "qa"}),
        "CorpusClassificationMetaProcessor": Entry(f"{_CORPUS}:CorpusMetaProcessor", {"items": "classification"}),
        "CorpusCaptioningMetaProcessor": Entry(f"{_CORPUS}:CorpusMetaProcessor", {"items": "captioning"}),
        "CorpusSegmentationMetaProcessor": Entry(f"{_CORPUS}:CorpusMetaProcessor", {"items": "segmentation"}),
    },
    "video_processor": {
        "VideoProcessor": Entry("mmpt.processors.base:VideoProcessor"),
        "ShardedVideoProcessor": Entry(f"{_HOW2}:ShardedVideoProcessor"),
        "ShardedVideoRetriVideoProcessor": Entry(f"{_HOW2}:VideoRetriVideoProcessor", {"sharded": True}),
        "VideoRetriVideoProcessor": Entry(f"{_HOW2}:VideoRetriVideoProcessor", {"sharded": False}),
        "YoucookVideoProcessor": Entry("mmpt.processors.youcook:YoucookVideoProcessor"),
        "CrossTaskVideoProcessor": Entry("mmpt.processors.base:VideoProcessor"),
        "CorpusVideoProcessor": Entry(f"{_CORPUS}:CorpusVideoProcessor"),
    },
    "text_processor": {
        "TextProcessor": Entry("mmpt.processors.base:TextProcessor"),
        "ShardedTextProcessor": Entry(f"{_HOW2}:ShardedTextProcessor"),
        "ShardedVideoRetriTextProcessor": Entry(f"{_HOW2}:VideoRetriTextProcessor", {"sharded": True}),
        "VideoRetriTextProcessor": Entry(f"{_HOW2}:VideoRetriTextProcessor", {"sharded": False}),
        "PKLJSONStrTextProcessor": Entry(f"{_HOW2}:PKLJSONStrTextProcessor"),
        "MSRVTTTextProcessor": Entry("mmpt.processors.msrvtt:MSRVTTTextProcessor"),
        "DiDeMoTextProcessor": Entry("mmpt.processors.base:TextProcessor"),
        "MSRVTTQATextProcessor": Entry("mmpt.processors.msrvtt_qa:MSRVTTQATextProcessor"),
        "NLGTextProcessor": Entry("mmpt.processors.captioning:NLGTextProcessor"),
        "MSRVTTNLGTextProcessor": Entry("mmpt.processors.captioning:MSRVTTNLGTextProcessor"),
        "CrossTaskTextProcessor": Entry("mmpt.processors.crosstask:CrossTaskTextProcessor"),
        "COINActionSegmentationTextProcessor": Entry("mmpt.processors.coin:COINActionSegmentationTextProcessor"),
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
        "MFMMLMAligner": Entry("mmpt.processors.how2_masking:MFMMLMAligner"),
        "How2MILNCEAligner": Entry("mmpt.processors.how2_milnce:How2MILNCEAligner"),
        "MSRVTTQAAligner": Entry("mmpt.processors.msrvtt_qa:MSRVTTQAAligner"),
        "DSNLGAligner": Entry("mmpt.processors.captioning:DSNLGAligner"),
        "CrossTaskAligner": Entry("mmpt.processors.crosstask:CrossTaskAligner"),
        "COINActionSegmentationAligner": Entry("mmpt.processors.coin:COINActionSegmentationAligner"),
    },
    "predictor": {
        "RetrievalPredictor": Entry("mmpt.evaluators.retrieval_predictor:RetrievalPredictor"),
        "DiDeMoPredictor": Entry("mmpt.evaluators.didemo_predictor:DiDeMoPredictor"),
        "QAPredictor": Entry("mmpt.evaluators.qa_predictor:QAPredictor"),
        "NLGPredictor": Entry("mmpt.evaluators.caption_predictor:NLGPredictor"),
        "CrossTaskPredictor": Entry("mmpt.evaluators.crosstask_predictor:CrossTaskPredictor"),
        "COINPredictor": Entry("mmpt.evaluators.coin_predictor:COINPredictor"),
        "COINZSPredictor": Entry("mmpt.evaluators.coin_predictor:COINZSPredictor"),
    },
    "metric": {
        "RetrievalMetric": Entry("mmpt.evaluators.metrics:RetrievalMetric"),
        "DiDeMoMetric": Entry("mmpt.evaluators.metrics:DiDeMoMetric"),
        "QAMetric": Entry("mmpt.evaluators.classification_metrics:QAMetric"),
        "NLGMetric": Entry("mmpt.evaluators.caption_metrics:NLGMetric"),
        "CrossTaskMetric": Entry("mmpt.evaluators.crosstask_metrics:CrossTaskMetric"),
        "COINActionSegmentationMetric": Entry("mmpt.evaluators.classification_metrics:COINActionSegmentationMetric"),
    },
    "vectorpool": {"VideoVectorPool": Entry("mmpt.modules.vectorpool:VideoVectorPool")},
    "retriever": {"VectorRetriever": Entry("mmpt.modules.retri:VectorRetriever")},
    "feature_encoder": {
        "s3d": Entry("mmpt.modules.feature_encoders:S3DEncoder"),
        "conv3d": Entry("mmpt.modules.feature_encoders:SmallConv3dEncoder"),
        "hf": Entry("mmpt.modules.feature_encoders:HuggingFaceEncoder"),
    },
}
