"""Maps that frames are located on: prepared once on the ground, opened read-only in flight."""
