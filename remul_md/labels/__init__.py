"""Labels for geometries: by a reference method, by a potential; and geometries to be labelled."""
