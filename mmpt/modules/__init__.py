"""Networks that models are built from: encoders, pooling, heads, masks."""
