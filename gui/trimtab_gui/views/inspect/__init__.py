"""What Inspect shows besides norms: spectra, overlaps and safety layers."""
