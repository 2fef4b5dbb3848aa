"""Further test sets of NSD, for decoders that were trained on its core."""
