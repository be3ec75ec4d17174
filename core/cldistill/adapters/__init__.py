"""LoRA adapters: slots on one frozen backbone, their layers, and adapter files of every format."""
