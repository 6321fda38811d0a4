"""LoRA adapters made from task vectors: low-rank factors of what fine-tuning changed."""
