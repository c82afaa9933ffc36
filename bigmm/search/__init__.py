"""From an objective to its minimum: starts, coordinates, probes, certificate and advice, for every kind of model."""
