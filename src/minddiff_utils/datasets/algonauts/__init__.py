"""The release of NSD for the Algonauts challenge of 2023."""
