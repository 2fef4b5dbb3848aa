"""NSD as MindEye2's folder on Hugging Face has it."""
