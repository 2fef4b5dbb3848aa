"""The "69" digits: read (`reader`) and downloaded (`source`)."""
