"""Whether a bundle's files and runners are still the same model, and what is wrong where not."""
