"""Four bodies under gravity: does an unconstrained network that learned rotations keep them outside its data?"""
