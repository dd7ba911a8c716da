"""Walking and running people (CMU motion capture), read by `remul_md.studies.tasks.mocap`; terms in README.md."""
