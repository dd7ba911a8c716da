"""A trained model with all that is needed to use it: files, reference energies, domain, provenance, what ships."""
