"""What REMUL does for a force field, on real data: accuracy, symmetry and dynamics of each way of training."""
