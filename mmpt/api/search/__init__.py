"""Search over folders of videos: an index of their clips on disk, its making, and queries by text, clip or image."""

from mmpt.api.search.building import index_folder
from mmpt.api.search.clip_index import ClipIndex
from mmpt.api.search.hits import SearchHit
from mmpt.api.search.summary import IndexSummary

__all__ = ["ClipIndex", "IndexSummary", "SearchHit", "index_folder"]
