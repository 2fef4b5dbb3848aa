"""From trials to the responses and stimuli of notebook 01."""
