"""Optimizers, and what a config says about single parameters: the section ``optim``."""
