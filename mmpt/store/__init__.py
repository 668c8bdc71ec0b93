"""What is on disk: video and audio decoding, features, frames, segments, transcripts."""
