"""From decoded features to images: stage 1, stage 2 and what is compared."""
