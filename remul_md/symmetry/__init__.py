"""Rotations, the REMUL losses and the measures of broken symmetry; nothing in here knows chemistry but the turning."""
