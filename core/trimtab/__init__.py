"""Trimtab shows what fine-tuning did to a model's safety and lets a person steer it back."""

__version__ = "0.1.0"
