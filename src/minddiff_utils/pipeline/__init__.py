"""The command line and the notebooks' runs."""
