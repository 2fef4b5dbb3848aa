"""Engines of stage 2 compared, a run of NSD's size rehearsed, costs."""
