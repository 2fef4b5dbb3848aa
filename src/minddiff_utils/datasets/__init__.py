"""The data sets' files: read, checked, downloaded."""
