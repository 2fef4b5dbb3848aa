"""The "69" digits: where they come from, and their reader."""
