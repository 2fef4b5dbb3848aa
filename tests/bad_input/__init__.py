"""The campaign of bad input: tables of what a user may get wrong, and one test."""
